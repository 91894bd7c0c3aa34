"""Instruction tuning's data sets: a plan's micro-batches and prompts, made whole in the loader's workers."""

from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lavic.batching.padding import pad_left, pad_runs
from lavic.batching.step_plan import MicroBatch
from lavic.catalogue.image_checks import open_checked
from lavic.model.image_entry import ImageReader
from lavic.model.multimodal_batch import BatchImages, MultimodalBatch, SupervisedBatch
from lavic.tasks.instruction.table import RecordTable


class RecordBatch(SupervisedBatch):
    """Conversations to learn from, and in a validation the same with other records' images."""

    shuffled: NotRequired[MultimodalBatch]


class RecordPrompts(MultimodalBatch):
    """Conversations up to an answer, and what is told of each beside it."""

    samples: list[Any]


class Images:
    """The images of rows that name them, and their padding token.

    Args:
        images_dir: folder of the images.
        reader: cuts the images.
    """

    def __init__(self, images_dir: Path | None, reader: ImageReader) -> None:
        self.images_dir, self.reader = images_dir, reader
        tokenizer = reader.processor.tokenizer
        self.pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def images(self, rows: list[dict[str, Any]]) -> BatchImages:
        """The images that rows name in `images`, of `sizes` and `image_tokens`."""
        found: BatchImages = {
            "sizes": [size for row in rows for size in row["sizes"]],
            "image_tokens": sum(sum(row["image_tokens"]) for row in rows),
        }
        for row in rows:
            written = np.count_nonzero(np.asarray(row["input_ids"]) == self.reader.image_token_id)
            if written != sum(row["image_tokens"]):
                raise RuntimeError(f"{written} image tokens in a text whose images have {sum(row['image_tokens'])}")
        views = [
            self._views(name, size) for row in rows for name, size in zip(row["images"], row["sizes"], strict=True)
        ]
        if views:
            found["views"] = torch.cat(views)
        return found

    def _views(self, name: str, size: tuple[int, int]) -> Tensor:
        assert self.images_dir is not None
        return self.reader.cut(open_checked(self.images_dir / name, size))


class RecordBatches(Images, Dataset[RecordBatch]):
    """Micro-batches of conversations and their images, by the `MicroBatch` that names their records.

    Args:
        table: the usable records.
        images_dir: folder of their images.
        reader: cuts the images.
        partners: for every record another one with as many images, (N,); with it, batches with images also hold the
            same texts with the partners' images, as `shuffled`.
    """

    def __init__(
        self,
        table: RecordTable,
        images_dir: Path | None,
        reader: ImageReader,
        partners: npt.NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(images_dir, reader)
        self.table, self.partners = table, partners

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, micro_batch: MicroBatch) -> RecordBatch:
        """The batch of a step plan's entry."""
        rows = [self.table.row(i) for i in micro_batch.indices]
        padded = pad_runs(
            [row["input_ids"] for row in rows], [row["runs"] for row in rows], self.pad_id, micro_batch.ghost
        )
        batch: RecordBatch = {
            **padded, **self.images(rows), "step_targets": micro_batch.step_targets, "rows": micro_batch.indices,
        }  # fmt: skip
        if self.partners is not None and batch["image_tokens"]:
            others = [self.table.row(int(self.partners[i])) for i in micro_batch.indices]
            texts = [_with_images_of(row, other, self.reader.image_token_id)
                     for row, other in zip(rows, others, strict=True)]  # fmt: skip
            ids, runs = [ids for ids, _ in texts], [runs for _, runs in texts]
            batch["shuffled"] = {**pad_runs(ids, runs, self.pad_id, micro_batch.ghost), **self.images(others)}
        return batch

    def prompts(self, indices: list[int]) -> RecordPrompts:
        """Each record up to its last answer, padded on the left, with its `samples`; for generation."""
        rows = [self.table.row(i) for i in indices]
        padded = pad_left([row["input_ids"][: row["runs"][-1][0]] for row in rows], self.pad_id)
        samples = [{name: row[name] for name in ("id", "images", "question", "answer")} for row in rows]
        return {**padded, **self.images(rows), "samples": samples}


class Prompts(Dataset[RecordPrompts]):
    """Records as prompts, `batch_size` of one kind at a time, this process's share."""

    def __init__(self, batches: RecordBatches, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        kinds = batches.table.kinds()
        self.source = batches
        self.chosen: list[list[int]] = []
        for kind in (0, 1):
            own = np.flatnonzero(kinds == kind)[rank::world_size].tolist()
            self.chosen += [own[i : i + batch_size] for i in range(0, len(own), batch_size)]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> RecordPrompts:
        return self.source.prompts(self.chosen[index])


def _with_images_of(
    row: dict[str, Any], other: dict[str, Any], image_token_id: int
) -> tuple[Any, list[tuple[int, int]]]:
    """A record's tokens and supervised runs with as many image tokens as another record's images have."""
    ids = row["input_ids"]
    repeats = np.ones(len(ids), dtype=np.int64)
    places = np.flatnonzero(ids == image_token_id)
    repeats[places] = 0
    first_of_each = np.cumsum([0, *row["image_tokens"][:-1]])
    repeats[places[first_of_each]] = other["image_tokens"]
    before = np.concatenate([[0], np.cumsum(repeats)])
    return np.repeat(ids, repeats), [(int(before[start]), int(before[stop])) for start, stop in row["runs"]]
