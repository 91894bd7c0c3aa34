"""What the model card says of stage 2's adapter."""

from pathlib import Path
from typing import Any

from lavic.training.card import CardParts


def card_parts(base: str, distilled: Path | None, data: Any) -> CardParts:
    """The card's texts, for an adapter over `base` and stage 1's `distilled`, trained on a `RecommendationData`."""
    counts = ", ".join(f"{count} to {split}" for split, count in data.sample_counts.items())
    missing = "replaces a random candidate" if data.inject else "leaves the sample out"
    return CardParts(
        what=f"LoRA for the language model of `{base}`: from a conversation and its candidates, each with an ID, a"
        " title and\nfive visual tokens, it names the best one's ID. It was trained on top of the vision adapter"
        f" `{distilled}`\nand expects it.",
        notes="Losses are in nats, the mean over all target tokens of the validation set; hit ratios are how often the"
        " target is the\nlikeliest candidate. `visual_gain` is how much the loss rises when every item is shown another"
        " item's image; the gain\nover no images, when it is shown none.",
        data=f"Categories {', '.join(data.categories)} with `{data.candidates}`: {counts} (a missing ground truth"
        f" {missing}).",
        loading=f"""from peft import PeftModel
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

folder = "recommendation_lora_adapter_best"  # this directory
processor = AutoProcessor.from_pretrained(folder)  # with the placeholders, cutting five views
model = LlavaNextForConditionalGeneration.from_pretrained("{base}")
model = PeftModel.from_pretrained(model, "vision_lora_adapter_best", adapter_name="distilled")
model.load_adapter(folder, adapter_name="recommendation")
model.base_model.set_adapter(["distilled", "recommendation"])""",
    )
