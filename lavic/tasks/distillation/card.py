"""What the model card says of stage 1's adapter."""

import json
from typing import Any

from lavic.training.card import CardParts


def card_parts(base: str, data: Any) -> CardParts:
    """The card's texts, for an adapter of the checkpoint `base` trained on a `DistillationData`."""
    sources = {
        split: {"metadata": str(source.metadata), "samples": data.sample_counts[split]}
        for split, source in data.sources.items()
    }
    return CardParts(
        what=f"LoRA for the vision tower and the projector of `{base}`: the class token of each of an item's five"
        "\nviews, projected, stands for the whole image.",
        notes="Losses are in nats, the mean over all supervised tokens of the validation set. `visual_gain` is how much"
        " the loss\nrises when every item is shown another item's image; the gain over a blank image, when it is shown"
        " none.",
        data=f"```json\n{json.dumps(sources, indent=2)}\n```",
        loading=f"""from peft import PeftModel
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

folder = "vision_lora_adapter_best"  # this directory
processor = AutoProcessor.from_pretrained(folder)  # with the placeholders, cutting five views
model = PeftModel.from_pretrained(LlavaNextForConditionalGeneration.from_pretrained("{base}"), folder)
vision = model.base_model.model.model
cls = vision.vision_tower(pixel_values).last_hidden_state[:, 0]  # (5, 1024), pixel_values (5, 3, 336, 336)
visual_tokens = vision.multi_modal_projector(cls)  # write these over <ItemImageEmb1> ... <ItemImageEmb5>""",
    )
