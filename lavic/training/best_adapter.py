"""Keeps the adapter with the lowest val_loss so far, and writes the validation's numbers as text."""

import json
import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from lavic.model.adapters.directory import save_adapter
from lavic.model.parts import count_trainable
from lavic.model.sharding import trainable_state
from lavic.training.run_log import record

log = logging.getLogger(__name__)


class BestAdapter(pl.Callback):
    """Saves at the end of the very validation whose val_loss is the best, when its metrics are known.

    (A Lightning callback's `on_validation_epoch_end` runs before the task's own, which logs val_loss;
    `on_validation_end` runs after it.)

    Args:
        name: folder of the adapter inside the output directory.
    """

    def __init__(self, name: str = "vision_lora_adapter_best") -> None:
        self.name = name
        self.best = float("inf")
        self._state: dict[str, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best val_loss, so that a resumed run does not replace a better adapter."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """After `state_dict`."""
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes val_metrics_epoch_N.txt, and the adapter where it is the best so far."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(("val_", "visual_"))}
        loss = metrics["val_loss"]
        is_best = loss < self.best
        if is_best:
            self.best = loss
        # with sharded weights every process has to give its part
        sharded = is_best and getattr(pl_module, "device_mesh", None) is not None
        self._state = trainable_state(pl_module.model) if sharded else None
        if not trainer.is_global_zero:
            return
        output = Path(trainer.default_root_dir)
        output.mkdir(parents=True, exist_ok=True)
        epoch = trainer.current_epoch + 1
        lines = [f"Val Loss: {loss:.6f}", f"Val PPL: {metrics['val_perplexity']:.6f}"]
        lines += [f"{k}: {v:.6f}" for k, v in metrics.items() if k not in ("val_loss", "val_perplexity")]
        (output / f"val_metrics_epoch_{epoch}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        log.info(
            "Epoch %d: val_loss %.4f, perplexity %.2f, visual_gain %.4f nats a token",
            epoch, loss, metrics["val_perplexity"], metrics["visual_gain"],
        )  # fmt: skip
        if is_best:
            self.save(trainer, pl_module, output / self.name, {"epoch": epoch, "step": trainer.global_step, **metrics})
            record(trainer, "adapter", step=trainer.global_step, val_loss=loss, path=str(output / self.name))
            log.info("Best LoRA adapter saved. (%s, val_loss %.4f)", output / self.name, loss)

    def save(self, trainer: Any, pl_module: Any, folder: Path, metrics: dict[str, float]) -> None:
        """Writes the adapter's directory; another stage's adapter is saved by a subclass."""
        card = model_card(trainer, pl_module, metrics)
        processor = trainer.datamodule.processor
        save_adapter(pl_module.model, processor, folder, card, state=self._state, task="distillation")


def model_card(trainer: Any, pl_module: Any, metrics: dict[str, float]) -> str:
    """The adapter's README.md: base model, data, metrics, versions, and how to load it."""
    base = pl_module.base.name
    data = {
        name: {"metadata": str(source.metadata), "samples": len(trainer.datamodule.tables[name])}
        for name, source in trainer.datamodule.sources.items()
    }
    versions = {p: version(p) for p in ("torch", "transformers", "peft", "lightning")} | {
        "python": platform.python_version()
    }
    numbers = "\n".join(f"| {name} | {value:.6g} |" for name, value in metrics.items())
    return f"""---
base_model: {base}
library_name: peft
tags: [lavic, llava-next, lora]
---
# LaViC stage 1: vision adapter

LoRA for the vision tower and the projector of `{base}`: the class token of each of an item's five views, projected,
stands for the whole image. {count_trainable(pl_module):,} trainable parameters.

| metric | value |
| --- | --- |
{numbers}

Losses are in nats, the mean over all supervised tokens of the validation set. `visual_gain` is how much the loss
rises when every item is shown another item's image; `visual_gain_blank`, when it is shown none.

## Data

```json
{json.dumps(data, indent=2)}
```

## How to load it

```python
from peft import PeftModel
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

folder = "vision_lora_adapter_best"  # this directory
processor = AutoProcessor.from_pretrained(folder)  # with the placeholders, cutting five views
model = PeftModel.from_pretrained(LlavaNextForConditionalGeneration.from_pretrained("{base}"), folder)
vision = model.base_model.model.model
cls = vision.vision_tower(pixel_values).last_hidden_state[:, 0]  # (5, 1024), pixel_values (5, 3, 336, 336)
visual_tokens = vision.multi_modal_projector(cls)  # write these over <ItemImageEmb1> ... <ItemImageEmb5>
```

## Versions

{", ".join(f"{name} {number}" for name, number in versions.items())}
"""
