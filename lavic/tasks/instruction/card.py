"""What the model card says of a tuned LLaVA."""

from typing import Any

from lavic.training.card import CardParts


def card_parts(base: str, modes: dict[str, Any], data: Any) -> CardParts:
    """The card's texts, for what was trained of the checkpoint `base` on an `InstructionData`."""
    counts = ", ".join(f"{count} to {split}" for split, count in data.sample_counts.items())
    trained = ", ".join(f"{part} {mode}" for part, mode in modes.items())
    return CardParts(
        what=f"`{base}` tuned on conversations: {trained}. Conversations are written by the template"
        f" `{data.template}`; images enter as {data.entry.tokens} tokens.",
        notes="Losses are in nats, the mean over all supervised tokens of the validation set, answers and their end"
        " tokens. `visual_gain` is how\nmuch the loss of the records with images rises when each is shown another"
        " record's.",
        data=f"Records: {counts}.",
        loading=f"""from pathlib import Path
import torch
from transformers import AutoModelForImageTextToText
from lavic.model.adapters.directory import load_adapter

llava = AutoModelForImageTextToText.from_pretrained("{base}")
model = load_adapter(llava, Path("instruction_adapter_best"), trainable=False)  # this directory""",
    )
