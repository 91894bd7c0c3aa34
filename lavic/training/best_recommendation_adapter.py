"""Keeps stage 2's adapter with the lowest val_loss so far."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lavic.model.adapters.directory import save_adapter
from lavic.model.parts import count_trainable
from lavic.training.best_adapter import BestAdapter


class BestRecommendationAdapter(BestAdapter):
    """As `BestAdapter`, for the second of the model's two adapters, which is saved by itself.

    Args:
        name: folder of the adapter inside the output directory.
    """

    def __init__(self, name: str = "recommendation_lora_adapter_best") -> None:
        super().__init__(name)

    def save(self, trainer: Any, pl_module: Any, folder: Path, metrics: dict[str, float]) -> None:
        """Writes the recommendation adapter's directory."""
        card = model_card(trainer.datamodule, pl_module, metrics)
        save_adapter(
            pl_module.model, trainer.datamodule.processor, folder, card, pl_module.adapter_name, task="recommendation"
        )


def model_card(data: Any, task: Any, metrics: dict[str, float]) -> str:
    """The adapter's README.md: base model, data, metrics, versions, and how to load it with stage 1's."""
    versions = {p: version(p) for p in ("torch", "transformers", "peft", "lightning")}
    versions["python"] = platform.python_version()
    numbers = "\n".join(f"| {name} | {value:.6g} |" for name, value in metrics.items())
    counts = ", ".join(f"{count} to {split}" for split, count in data.sample_counts.items())
    return f"""---
base_model: {task.base.name}
library_name: peft
tags: [lavic, llava-next, lora]
---
# LaViC stage 2: recommendation adapter

LoRA for the language model of `{task.base.name}`: from a conversation and its candidates, each with an ID, a title and
five visual tokens, it names the best one's ID. {count_trainable(task):,} trainable parameters. It was trained on top
of the vision adapter `{task.distilled}` and expects it.

| metric | value |
| --- | --- |
{numbers}

Losses are in nats, the mean over all target tokens of the validation set; hit ratios are how often the target is the
likeliest candidate. `visual_gain` is how much the loss rises when every item is shown another item's image;
`visual_gain_no_images`, when it is shown none.

## Data

Categories {", ".join(data.categories)} with `{data.candidates}`: {counts} (a missing ground truth
{"replaces a random candidate" if data.inject else "leaves the sample out"}).

## How to load it

```python
from peft import PeftModel
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

folder = "recommendation_lora_adapter_best"  # this directory
processor = AutoProcessor.from_pretrained(folder)  # with the placeholders, cutting five views
model = LlavaNextForConditionalGeneration.from_pretrained("{task.base.name}")
model = PeftModel.from_pretrained(model, "vision_lora_adapter_best", adapter_name="distilled")
model.load_adapter(folder, adapter_name="recommendation")
model.base_model.set_adapter(["distilled", "recommendation"])
```

## Versions

{", ".join(f"{name} {number}" for name, number in versions.items())}
"""
