"""An image -> LLaVA-v1.6's views, as uint8; the scaling to floats happens on the training device.

The cutting is the model's own: `LlavaNextImageProcessor` with its last two steps (rescale, normalise) left out.
`five` restricts it to the one grid that always gives five views, the whole image and a 2x2 grid of crops with
the aspect ratio kept by padding; `anyres` leaves the model's native grids, which give 3 to 5.
"""

from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextImageProcessor
from transformers.image_processing_utils import select_best_resolution

Views = Literal["five", "anyres"]


def restrict_grid(image_processor: LlavaNextImageProcessor, views: Views) -> LlavaNextImageProcessor:
    """Sets the processor's grids to what `views` asks for; saved with an adapter, it cuts the same everywhere."""
    if views == "five":
        side = view_side(image_processor)
        image_processor.image_grid_pinpoints = [[2 * side, 2 * side]]
    return image_processor


def native_grids(side: int) -> list[list[int]]:
    """LLaVA-1.6's grids (height, width) for views of `side` pixels: 1x2, 2x1, 2x2, 3x1 and 1x3."""
    return [[rows * side, columns * side] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]


def view_side(image_processor: LlavaNextImageProcessor) -> int:
    """Pixels of one view's side (336 in LLaVA-v1.6)."""
    return int(image_processor.crop_size["height"])


def count_views(image_processor: LlavaNextImageProcessor, width: int, height: int) -> int:
    """How many views an image of `width` x `height` pixels is cut into: the whole, and its grid's cells."""
    side = view_side(image_processor)
    rows: int
    columns: int
    rows, columns = select_best_resolution((height, width), image_processor.image_grid_pinpoints)
    return 1 + (rows // side) * (columns // side)


def cut_views(image_processor: LlavaNextImageProcessor, image: Image.Image) -> Tensor:
    """The image's views, (views, 3, side, side) uint8: the whole first, then the grid's cells row by row."""
    cut: dict[str, Any] = image_processor(images=image, do_rescale=False, do_normalize=False, return_tensors="pt")
    views: Tensor = cut["pixel_values"][0]
    return views.to(torch.uint8)
