"""What the model card says of a VQA adapter."""

from typing import Any

from lavic.training.card import CardParts


def card_parts(base: str, data: Any) -> CardParts:
    """The card's texts, for an adapter over `base` trained on a `VqaData`."""
    counts = ", ".join(f"{count} to {split}" for split, count in data.sample_counts.items())
    return CardParts(
        what=f"An adapter of `{base}` that answers questions about images in a few words.",
        notes="Exact match is SQuAD v1.1's, of greedily generated answers. Losses are in nats, the mean over all target"
        " tokens of\nthe validation set. `visual_gain` is how much the loss rises when every question is shown another"
        " image.",
        data=f"Questions: {counts}; questions that need outside knowledge: `{data.knowledge.mode}`. The instruction"
        f" before every image:\n\n> {data.instruction}",
        loading=f"""from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = "vqa_adapter_best"  # this directory
processor = AutoProcessor.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained("{base}"), folder)""",
    )
