"""Stage 1's data module: LaViC's item2meta files and their images."""

import json
import logging
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from lavic.batching.controls import partners_of
from lavic.batching.resumable_loader import ResumableLoader
from lavic.batching.step_plan import StepPlan
from lavic.catalogue.descriptions import Skipped
from lavic.errors import UserError
from lavic.model.processor import load_processor
from lavic.model.views import Views
from lavic.tasks.distillation.described_images import DescribedImages, Prompts
from lavic.tasks.distillation.samples import SampleSource, SampleTable, load_samples

log = logging.getLogger(__name__)


class DistillationData(pl.LightningDataModule):
    """Titles, images and descriptions, for `lavic.tasks.distillation.Distillation`.

    Args:
        train_data: item2meta file to train on, `.json` or `.jsonl`.
        val_data: item2meta file to validate on.
        train_images_dir: folder of the training images.
        val_images_dir: folder of the validation images.
        views: `five` cuts every image into 5 views; `anyres` into the 3 to 5 of the model's native grids.
        max_length: tokens of a sample at most; longer ones lose the end of their title.
        batch_size: samples of one forward pass on one device.
        max_samples: train on a random choice of that many samples (by the seed); null takes all.
        num_workers: processes that decode images, for each device.
        strict: stop at the first sample that cannot be used, instead of listing it in skipped_samples.jsonl.
        model_name: whose processor is used (set by the command line from the model's own name).
        seed: of the samples' order and choice (set by the command line from seed_everything).
        cache_dir: folder of the checked and tokenised samples; null means ~/.cache/lavic.
    """

    def __init__(
        self,
        train_data: Path = Path("data/item2meta_train.json"),
        val_data: Path = Path("data/item2meta_valid.jsonl"),
        train_images_dir: Path = Path("data/train_images"),
        val_images_dir: Path = Path("data/valid_images"),
        views: Views = "five",
        max_length: int = 512,
        batch_size: int = 1,
        max_samples: int | None = None,
        num_workers: int = 4,
        strict: bool = False,
        model_name: str = "llava-hf/llava-v1.6-mistral-7b-hf",
        seed: int = 42,
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__()
        for option, value in {"batch_size": batch_size, "max_length": max_length, "max_samples": max_samples}.items():
            if value is not None and value < 1:
                raise UserError(f"{option} is {value}; it must be at least 1.")
        if num_workers < 0:
            raise UserError(f"num_workers is {num_workers}; it must be 0 (load in the main process) or more.")
        self.sources = {
            "train": SampleSource(Path(train_data), Path(train_images_dir), views, max_length, max_samples, seed),
            "val": SampleSource(Path(val_data), Path(val_images_dir), views, max_length, None, seed),
        }
        self.views, self.batch_size, self.num_workers = views, batch_size, num_workers
        self.strict, self.model_name, self.seed = strict, model_name, seed
        home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        self.cache_dir = Path(cache_dir) if cache_dir else home / "lavic"
        self.tables: dict[str, SampleTable] = {}
        self.skipped: dict[str, list[Skipped]] = {}

    def prepare_data(self) -> None:
        """On one process only: checks and tokenises what the cache does not hold yet."""
        self._load()

    def setup(self, stage: str) -> None:
        """On every process: maps the finished tables, and lists what was left out."""
        self._load()
        counts = ", ".join(f"{n} to {split}" for split, n in self.sample_counts.items())
        left_out = ", ".join(f"{n} x {reason}" for reason, n in self.skipped_reasons.items())
        log.info("Samples: %s; left out: %s", counts, left_out or "none")
        if self.trainer is not None and self.trainer.is_global_zero:
            self._list_skipped(Path(self.trainer.default_root_dir) / "skipped_samples.jsonl")

    def train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of `DescribedImages`, in the order of `StepPlan`."""
        assert self.trainer is not None
        plan = self._plan("train", accumulate=self.trainer.accumulate_grad_batches, seed=self.seed)
        return ResumableLoader(self._images("train"), plan, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation set, each sample once, with the views of a partner for the shuffled control."""
        partners = partners_of(self.tables["val"].column("item"), self.seed)
        plan = self._plan("val", accumulate=1, seed=None)
        return DataLoader(self._images("val", partners), batch_size=None, sampler=plan, **self._loader_options())

    def test_dataloader(self) -> DataLoader[Any]:
        """The validation set: stage 1 has no other."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """The validation set's prompts, to generate descriptions from."""
        assert self.trainer is not None
        prompts = Prompts(self._images("val"), self.batch_size, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(prompts, batch_size=None, **self._loader_options())

    def validation_images(self) -> DescribedImages:
        """The validation samples, for looking at single ones."""
        return self._images("val")

    @property
    def sample_counts(self) -> dict[str, int]:
        """Usable samples by set."""
        return {split: len(table) for split, table in self.tables.items()}

    @property
    def skipped_reasons(self) -> dict[str, int]:
        """How many entries were left out, by reason, over both sets."""
        return dict(Counter(skipped.reason for several in self.skipped.values() for skipped in several))

    def sample_names(self, rows: list[int]) -> list[str]:
        """The images of these training samples."""
        return [str(self.tables["train"].row(row)["image"]) for row in rows]

    def _load(self) -> None:
        if self.tables:
            return
        self.processor = load_processor(self.model_name, self.views)
        training = self.trainer is None or self.trainer.state.fn == "fit"
        for split in ("train", "val") if training else ("val",):
            self.tables[split], self.skipped[split] = load_samples(
                self.sources[split], self.processor, self.cache_dir, self.strict
            )

    def _images(self, split: str, partners: list[int] | None = None) -> DescribedImages:
        return DescribedImages(self.tables[split], self.sources[split].images_dir, self.processor, partners)

    def _plan(self, split: str, accumulate: int, seed: int | None) -> StepPlan:
        assert self.trainer is not None
        table = self.tables[split]
        return StepPlan(
            table.lengths(), table.target_lengths(), self.batch_size, accumulate,
            self.trainer.world_size, self.trainer.global_rank, seed,
        )  # fmt: skip

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": _as_it_is,  # a data set's element is a whole micro-batch
        }

    def _list_skipped(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (
            json.dumps({"set": split, **asdict(skipped)}) + "\n"
            for split, several in self.skipped.items()
            for skipped in several
        )
        path.write_text("".join(lines), encoding="utf-8")


def _as_it_is(batch: Any) -> Any:
    return batch
