"""Stage 1's data module: LaViC's item2meta files and their images."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from lavic.batching.cached_table import cache_folder
from lavic.batching.controls import partners_of
from lavic.batching.padding import PromptBatch
from lavic.catalogue.image_checks import ImageChecks
from lavic.model.processor import load_processor
from lavic.model.views import Views
from lavic.ranges import check_ranges
from lavic.tasks.base import TaskData
from lavic.tasks.distillation.batches import DescribedImages, Prompts
from lavic.tasks.distillation.table import SampleSource, SampleTable, load_samples
from lavic.training.protocols import ShownSample


class DistillationData(TaskData):
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
        super().__init__(batch_size, max_samples, num_workers, strict, model_name, seed)
        check_ranges(max_length=max_length)
        self.sources = {
            "train": SampleSource(Path(train_data), Path(train_images_dir), views, max_length, max_samples, seed),
            "val": SampleSource(Path(val_data), Path(val_images_dir), views, max_length, None, seed),
        }
        self.views = views
        self.cache_dir = cache_folder(cache_dir)
        self.tables: dict[str, SampleTable] = {}

    def prepare_data(self) -> None:
        """On one process only: checks and tokenises what the cache does not hold yet."""
        self._load()

    def setup(self, stage: str) -> None:
        """On every process: maps the finished tables, and lists what was left out."""
        self._load()
        self.announce()

    def dataset(self, split: str) -> DescribedImages:
        """The images of a split; those to validate with also show a partner's, for the shuffled control."""
        partners = partners_of(self.tables["val"].column("item"), self.seed) if split == "val" else None
        return DescribedImages(self.tables[split], self.sources[split].images_dir, self.processor, partners)

    def lengths(self, split: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Each sample's tokens, and those of its description."""
        return self.tables[split].lengths(), self.tables[split].target_lengths()

    def fingerprint(self) -> str:
        """Of the training images' names and tokens."""
        return self.tables["train"].content_hash()

    def test_dataloader(self) -> DataLoader[Any]:
        """The validation set: stage 1 has no other."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """The validation set's prompts, to generate descriptions from."""
        assert self.trainer is not None
        prompts = Prompts(self.dataset("val"), self.batch_size, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(prompts, batch_size=None, **self.loader_options())

    def shown_samples(self, count: int) -> list[ShownSample]:
        """`count` validation samples, chosen by chance but the same each time."""
        images = self.dataset("val")
        chosen = np.random.default_rng(0).permutation(len(images))[:count].tolist()
        return [_shown(images.prompts([index])) for index in chosen]

    def sample_names(self, rows: list[int]) -> list[str]:
        """The images of these training samples."""
        return [str(self.tables["train"].row(row)["image"]) for row in rows]

    def _load(self) -> None:
        if self.tables:
            return
        self.processor = load_processor(self.model_name, self.views)
        training = self.trainer is None or self.trainer.state.fn == "fit"
        checks_of = cache(ImageChecks)  # the splits' images may lie in one folder
        for split in ("train", "val") if training else ("val",):
            self.tables[split], rejected = load_samples(
                self.sources[split], self.processor, self.cache_dir, self.strict, checks_of
            )
            self.sample_counts[split] = len(self.tables[split])
            self.left_out += [entry.of_split(split) for entry in rejected]


def _shown(batch: PromptBatch) -> ShownSample:
    [sample] = batch["samples"]
    fields = {name: value for name, value in sample.items() if name != "description"}
    return ShownSample(batch, batch["views"][0], fields, sample["description"])  # the first view is the whole image
