"""An item's image as five tokens: the class token of every view, projected and written over the placeholders.

Shapes: V views in a batch, S their side in pixels, C the vision tower's width, D the language model's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration


class Normalise(nn.Module):
    """uint8 views -> the vision tower's input, on the views' own device, as the model's processor does.

    Args:
        image_processor: whose mean, standard deviation and rescaling are used.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, image_processor: Any) -> None:
        super().__init__()
        mean, std = torch.tensor(image_processor.image_mean), torch.tensor(image_processor.image_std)
        self.register_buffer("scale", (image_processor.rescale_factor / std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(3, 1, 1), persistent=False)

    def forward(self, views: Tensor, dtype: torch.dtype) -> Tensor:
        """(V, 3, S, S) uint8 -> (V, 3, S, S) of `dtype`."""
        pixels: Tensor = views.float().mul_(self.scale).add_(self.shift)
        return pixels.to(dtype)


def blank_views(image_processor: Any, count: int = 1) -> Tensor:
    """Views of nothing: every pixel has the mean colour, so that it is zero once normalised. (V, 3, S, S) uint8."""
    side = image_processor.crop_size["height"]
    mean: Tensor = (torch.tensor(image_processor.image_mean) / image_processor.rescale_factor).round()
    return mean.to(torch.uint8).view(1, 3, 1, 1).expand(count, 3, side, side).contiguous()


def cls_tokens(llava: LlavaNextForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Every view's class token after the vision tower's last layer, before its post-layernorm: (V, C)."""
    states: Tensor = llava.model.vision_tower(pixels).last_hidden_state
    return states[:, 0]


def project(llava: LlavaNextForConditionalGeneration, cls: Tensor) -> Tensor:
    """Class tokens -> visual tokens, by LLaVA's own projector: (V, C) -> (V, D)."""
    visual_tokens: Tensor = llava.model.multi_modal_projector(cls)
    return visual_tokens


def fill_placeholders(
    inputs_embeds: Tensor, input_ids: Tensor, visual_tokens: Tensor, placeholder_ids: Sequence[int]
) -> Tensor:
    """Writes the visual tokens, in order, over the placeholders' embeddings.

    Args:
        inputs_embeds: (B, T, D).
        input_ids: (B, T); holds V placeholders in all.
        visual_tokens: (V, D).
        placeholder_ids: the token ids that mark a place.

    Returns:
        (B, T, D); gradients flow into `visual_tokens`.
    """
    places = torch.isin(input_ids, torch.tensor(placeholder_ids, device=input_ids.device))
    return inputs_embeds.masked_scatter(places.unsqueeze(-1), visual_tokens.to(inputs_embeds.dtype))
