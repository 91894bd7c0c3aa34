"""How images enter the language model: as LaViC's class tokens, or as LLaVA's own patch tokens.

Either way an image is a run of image tokens in the text, whose length is known from the image's size beforehand, and
whose embeddings are replaced by as many visual tokens. What a text without image needs is nothing.

Shapes: I images, V their views together, S a view's side in pixels, N their visual tokens together, D the language
model's width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import CLIPImageProcessor, LlavaImageProcessor, LlavaNextModel, LlavaProcessor, PretrainedConfig
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from lavic.errors import UserError
from lavic.model.loading import Llava
from lavic.model.parts import part_of
from lavic.model.processor import LlavaAnyProcessor, check_processor, complete, load_plain_processor, load_processor
from lavic.model.unread_parameters import Entry, extra_positions
from lavic.model.views import Views, count_views, cut_views
from lavic.model.visual_tokens import Normalise, cls_tokens, project


@dataclass(frozen=True)
class ImageEntry:
    """What of an image the language model reads.

    Args:
        tokens: `patch` is the checkpoint's own: of LLaVA-1.5 the 576 patches of one view, of LLaVA-1.6 those of 3 to 5
            views, unpadded, with a newline after each row. `cls` is LaViC's: one class token a view.
        views: how `cls` cuts an image: `five` always gives five views, `anyres` 3 to 5.
        shape: how LLaVA-1.5's one view becomes square: `pad` adds borders of the mean colour, `square` cuts the longer
            side's ends off; null does as the checkpoint's processor does.
    """

    tokens: Entry = "patch"
    views: Views = "five"
    shape: Literal["pad", "square"] | None = None


class ImageReader:
    """Cuts images and turns them into visual tokens, as an `ImageEntry` says. Holds no weights.

    Args:
        name: hub name or directory of the checkpoint, or of an adapter that was saved with its processor.
        config: the LLaVA's configuration.
        entry: what of an image is read.

    Raises:
        UserError: the processor does not load, `shape` is asked of a LLaVA that has views of its own, or `cls` of a
            tower without class token.
    """

    def __init__(self, name: str, config: PretrainedConfig, entry: ImageEntry) -> None:
        self.name, self.entry, self.config = name, entry, config
        one_view = config.model_type == "llava"
        if entry.shape and (entry.tokens == "cls" or not one_view):
            raise UserError(
                f"shape: {entry.shape} is for LLaVA-1.5's one view; '{name}' with tokens: {entry.tokens} cuts"
                " several; leave it out."
            )
        if entry.tokens == "cls" and not extra_positions(config):
            raise UserError(
                f"The vision tower of '{name}' ({config.vision_config.model_type}) has no class token; give tokens:"
                " patch."
            )
        self.processor: LlavaAnyProcessor
        if entry.tokens == "cls":
            self.processor = load_processor(name, entry.views)
        else:
            self.processor = load_plain_processor(name)
        check_processor(self.processor, config, name)
        if entry.tokens != "cls":
            _fit(self.processor, config, entry)

    @property
    def image_processor(self) -> Any:
        """Its mean and standard deviation are what `Normalise` needs on the device."""
        return self.processor.image_processor

    @property
    def image_token_id(self) -> int:
        """The token whose run stands for an image."""
        return int(self.processor.image_token_id)

    def count(self, width: int, height: int) -> int:
        """How many image tokens stand for an image of that size in pixels."""
        if self.entry.tokens == "cls":
            return count_views(self.image_processor, width, height)
        counted = self.processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
        return int(counted["num_image_tokens"][0])

    def cut(self, image: Image.Image) -> Tensor:
        """An upright RGB image's views: (views, 3, S, S) uint8."""
        views = cut_views(self.image_processor, image)
        return views if views.dim() == 4 else views[None]

    def normaliser(self) -> Normalise:
        """Turns uint8 views into the tower's input on the device."""
        return Normalise(self.image_processor)

    def order(self, sizes: Sequence[tuple[int, int]]) -> Tensor | None:
        """Which patches the visual tokens of images are, made on the host, so that nothing waits for the device.

        LLaVA-1.6 leaves out the patches of its padding, and writes a newline of its own behind every row of the grid.

        Args:
            sizes: of the I images before cutting, (width, height) in pixels.

        Returns:
            (N,) int64, indices into all views' patches, one after the other, of which the newline comes last; None
            where every patch is a visual token, in order.
        """
        if self.entry.tokens == "cls" or self.config.model_type != "llava_next":
            return None
        vision = self.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        grids = [list(grid) for grid in self.config.image_grid_pinpoints]
        heights = [(height, width) for width, height in sizes]
        views = [image_size_to_num_patches(size, grids, vision.image_size) for size in heights]
        numbers = torch.arange(sum(views) * patches).view(-1, patches, 1)
        packed, _ = LlavaNextModel.pack_image_features(
            SimpleNamespace(config=self.config),  # transformers' own packing, of the patches' numbers
            torch.split(numbers, views),
            heights,
            self.config.vision_feature_select_strategy,
            image_newline=torch.full((1,), numbers.numel()),
        )
        return torch.cat(packed).flatten()

    def visual_tokens(self, llava: Llava, pixels: Tensor, order: Tensor | None) -> Tensor:
        """Visual tokens to write over the image tokens, in their order.

        Args:
            llava: the model.
            pixels: (V, 3, S, S), normalised; the images' views one after the other.
            order: of `order`, for these images, on the device.

        Returns:
            (N, D).
        """
        if self.entry.tokens == "cls":
            return project(llava, cls_tokens(llava, pixels))
        states = llava.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        layers = self.config.vision_feature_layer
        read = states[layers] if isinstance(layers, int) else torch.cat([states[layer] for layer in layers], dim=-1)
        if self.config.vision_feature_select_strategy == "default":
            read = read[:, 1:]
        patches: Tensor = llava.model.multi_modal_projector(read).flatten(0, 1)
        if order is None:
            return patches
        return torch.cat([patches, llava.model.image_newline.to(patches)[None]]).index_select(0, order)


def touch(llava: Llava) -> Tensor:
    """Zero, by way of every trainable parameter of vision and projector.

    Added to the loss of a batch without images, it gives them a gradient of zero without running the tower, so that DDP
    does not wait for one.
    """
    zero = torch.zeros((), device=llava.device)
    for name, parameter in llava.named_parameters():
        if parameter.requires_grad and part_of(name) != "language":
            own = parameter.to_local() if isinstance(parameter, DTensor) else parameter  # FSDP2's: this process's part
            zero = zero + 0.0 * own.float().sum()
    return zero


def _fit(processor: LlavaAnyProcessor, config: PretrainedConfig, entry: ImageEntry) -> None:
    """Makes a processor count and cut as the model does, whatever it was saved with."""
    complete(processor, config)
    if not isinstance(processor, LlavaProcessor):
        processor.image_processor.image_grid_pinpoints = [list(grid) for grid in config.image_grid_pinpoints]
        return
    if isinstance(processor.image_processor, CLIPImageProcessor) and entry.shape == "pad":
        processor.image_processor = LlavaImageProcessor(**_clip_options(processor.image_processor))
    if entry.shape is not None and isinstance(processor.image_processor, LlavaImageProcessor):
        processor.image_processor.do_pad = entry.shape == "pad"


def _clip_options(clip: CLIPImageProcessor) -> dict[str, Any]:
    """What CLIP's processor and LLaVA-1.5's, which can pad as well, both know."""
    names = ("size", "crop_size", "resample", "image_mean", "image_std", "rescale_factor")
    return {name: getattr(clip, name) for name in names}
