"""Stage 1's data sets: a plan's micro-batches and prompts, made whole in the loader's workers."""

from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlavaNextProcessor

from lavic.batching.padding import PromptBatch, TrainingBatch, pad, pad_left
from lavic.batching.step_plan import MicroBatch
from lavic.catalogue.image_checks import open_checked
from lavic.errors import UserError
from lavic.model.prefix_reuse import Segments
from lavic.model.views import cut_views
from lavic.tasks.distillation.table import SampleTable


class DescribedBatch(TrainingBatch):
    """Prompts, targets and the images' views."""

    views: Tensor  # (V, 3, side, side) uint8
    partner_views: NotRequired[Tensor]  # as many, of other items' images: in a validation
    segments: NotRequired[Segments]  # set before the batch leaves the host


class DescribedImages(Dataset[DescribedBatch]):
    """Micro-batches of prompt, target and views, by the `MicroBatch` that names their samples.

    Args:
        table: the usable samples.
        images_dir: folder of their images.
        processor: cuts the images and gives the padding token.
        partners: for every sample another one, (N,); with it, batches also hold the partners' views.
    """

    def __init__(
        self,
        table: SampleTable,
        images_dir: Path,
        processor: LlavaNextProcessor,
        partners: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.table, self.images_dir, self.partners = table, images_dir, partners
        self.image_processor = processor.image_processor
        tokenizer = processor.tokenizer
        self.pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, micro_batch: MicroBatch) -> DescribedBatch:
        """The batch of a step plan's entry; with `partner_views` where there are partners."""
        rows = [self.table.row(i) for i in micro_batch.indices]
        padded = pad(
            [row["input_ids"] for row in rows], [row["target_start"] for row in rows], self.pad_id, micro_batch.ghost
        )
        views = [self.views(row) for row in rows]
        batch: DescribedBatch = {
            **padded, "views": torch.cat(views), "step_targets": micro_batch.step_targets, "rows": micro_batch.indices,
        }  # fmt: skip
        if self.partners is not None:
            others = [self.views(self.table.row(self.partners[i])) for i in micro_batch.indices]
            # under `anyres` a partner may have fewer or more views: its own are repeated or cut off
            batch["partner_views"] = torch.cat(
                [other[torch.arange(len(own)) % len(other)] for own, other in zip(views, others, strict=True)]
            )
        return batch

    def prompts(self, indices: list[int]) -> PromptBatch:
        """The samples' prompts without their targets, for generation."""
        rows = [self.table.row(i) for i in indices]
        padded = pad_left([row["input_ids"][: row["target_start"]] for row in rows], self.pad_id)
        samples = [{name: row[name] for name in ("item", "title", "image", "description")} for row in rows]
        views = torch.cat([self.views(row) for row in rows])
        return {**padded, "views": views, "samples": samples}

    def views(self, row: dict[str, Any]) -> Tensor:
        """One sample's views, (views, 3, side, side) uint8.

        Raises:
            UserError: the image was whole when the table was made and is not any more.
        """
        path = self.images_dir / row["image"]
        views = cut_views(self.image_processor, open_checked(path))
        if len(views) != row["views"]:
            raise UserError(
                f"The image {path} was cut into {row['views']} views when the run began and would be into {len(views)}"
                " now; restore it and start again with --resume."
            )
        return views


class Prompts(Dataset[PromptBatch]):
    """The same samples as prompts to generate from, `batch_size` at a time."""

    def __init__(self, images: DescribedImages, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.images = images
        indices = list(range(len(images)))[rank::world_size]
        self.batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> PromptBatch:
        return self.images.prompts(self.batches[index])
