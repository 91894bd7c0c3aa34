"""Both stages as published, written plainly: what `benchmarks/training.py` compares against.

One sample a step. The main process opens the image, cuts and normalises it between two steps; placeholders are
filled one by one; the language model runs over the whole sequence with gradients, and the output head gives logits
at every position, of which the loss then takes those of the target.
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration, LlavaNextImageProcessor

IGNORED = -100


def load_pixels(image_processor: LlavaNextImageProcessor, image: Path, dtype: torch.dtype) -> Tensor:
    """(5, 3, 336, 336), normalised, made in the calling process."""
    with Image.open(image) as opened:
        pixels: Tensor = image_processor(images=opened.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    return pixels.to(dtype)


def reference_loss(
    llava: LlavaNextForConditionalGeneration,
    pixels: Tensor,
    input_ids: Tensor,
    labels: Tensor,
    placeholder_ids: list[int],
) -> Tensor:
    """Mean cross-entropy over the target's tokens of one sample; `input_ids` and `labels` are (1, T)."""
    class_tokens = llava.model.vision_tower(pixels).last_hidden_state[:, 0]
    visual_tokens = llava.model.multi_modal_projector(class_tokens)
    return reference_language_loss(llava, visual_tokens, input_ids, labels, placeholder_ids)


def reference_language_loss(
    llava: LlavaNextForConditionalGeneration,
    visual_tokens: Tensor,
    input_ids: Tensor,
    labels: Tensor,
    placeholder_ids: list[int],
) -> Tensor:
    """The same from the visual tokens on, (V, D): all of stage 2's step, whose class tokens are given."""
    embeds = llava.get_input_embeddings()(input_ids).clone()
    view = 0
    for position in range(input_ids.shape[1]):
        if input_ids[0, position].item() in placeholder_ids:
            embeds[0, position] = visual_tokens[view].to(embeds.dtype)
            view += 1
    hidden = llava.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    logits = llava.lm_head(hidden).float()
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )
