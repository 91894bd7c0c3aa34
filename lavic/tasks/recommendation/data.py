"""Stage 2's data module: LaViC's conversation files, the catalogue, and the item store."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from lavic.batching.resumable_loader import ResumableLoader
from lavic.batching.step_plan import StepPlan
from lavic.catalogue.conversations import Conversation, Fault, Sample, read_category_split, training_samples
from lavic.catalogue.items import Item, read_items
from lavic.errors import UserError
from lavic.model.processor import load_processor
from lavic.model.views import Views
from lavic.tasks.recommendation.choices import ChoiceEncoder, EvaluationChoices, TrainingChoices, rough_length
from lavic.tasks.recommendation.item_store import ItemStore, store_identity

log = logging.getLogger(__name__)


class RecommendationData(pl.LightningDataModule):
    """Conversations with candidates, for `lavic.tasks.recommendation.Recommendation`.

    Args:
        data_dir: folder of the categories' folders, each with train.jsonl, valid.jsonl and test.jsonl.
        categories: the categories' names; several are used together, and reported one by one too.
        candidates: field of the conversation files that holds the candidates, such as candidates_st.
        metadata: item2meta files, `.json` or `.jsonl`; together the catalogue.
        images_dirs: folders of the items' images, `ID_i.jpg`.
        item_store: folder of the item stores that `python -m lavic embed` fills.
        views: how images are cut, `five` or `anyres`; as in stage 1.
        inject: in training and validation, let a missing ground truth replace a random candidate; false leaves
            such samples out. Test conversations are never changed.
        max_length: tokens of a prompt and its answer at most; longer conversations lose their oldest part.
        batch_size: conversations of one forward pass on one device.
        max_samples: train on a random choice of that many samples (by the seed); null takes all.
        num_workers: processes that make prompts, for each device.
        strict: stop at the first conversation that cannot be used, instead of listing it in
            skipped_conversations.jsonl.
        test_split: the split that `test` and `predict` use.
        model_name: whose processor is used (set by the command line from the model's own name).
        seed: of the samples' order and choice (set by the command line from seed_everything).
    """

    def __init__(
        self,
        data_dir: Path = Path("data"),
        categories: Sequence[str] = ("all_beauty",),
        candidates: str = "candidates_st",
        metadata: Sequence[Path] = (Path("data/item2meta_train.json"),),
        images_dirs: Sequence[Path] = (Path("data/train_images"),),
        item_store: Path = Path("data/item_store"),
        views: Views = "five",
        inject: bool = True,
        max_length: int = 2048,
        batch_size: int = 1,
        max_samples: int | None = None,
        num_workers: int = 4,
        strict: bool = False,
        test_split: str = "test",
        model_name: str = "llava-hf/llava-v1.6-mistral-7b-hf",
        seed: int = 42,
    ) -> None:
        super().__init__()
        for option, value in {
            "batch_size": batch_size,
            "max_length": max_length,
            "max_samples": max_samples,
        }.items():
            if value is not None and value < 1:
                raise UserError(f"{option} is {value}; it must be at least 1.")
        if num_workers < 0:
            raise UserError(f"num_workers is {num_workers}; it must be 0 (load in the main process) or more.")
        if not categories:
            raise UserError("categories is empty; name at least one, such as all_beauty.")
        self.data_dir, self.categories, self.candidates = Path(data_dir), list(categories), candidates
        self.metadata, self.images_dirs = [Path(p) for p in metadata], [Path(p) for p in images_dirs]
        self.item_store, self.views, self.inject = Path(item_store), views, inject
        self.max_length, self.batch_size, self.max_samples = max_length, batch_size, max_samples
        self.num_workers, self.strict, self.test_split = num_workers, strict, test_split
        self.model_name, self.seed = model_name, seed
        self.conversations: dict[str, list[Conversation]] = {}
        self.faults: list[Fault] = []

    def setup(self, stage: str) -> None:
        """Reads the splits that a stage needs, and opens the item store for the items in them."""
        assert self.trainer is not None
        splits = {"fit": ("train", "valid"), "validate": ("valid",)}.get(stage, (self.test_split,))
        new = [split for split in splits if split not in self.conversations]
        if not new:
            return
        self.items = read_items(self.metadata, self.images_dirs)
        self.processor = load_processor(self.model_name, self.views)
        for split in new:
            self.conversations[split], faults = read_category_split(
                self.data_dir, self.categories, split, self.candidates
            )
            self.faults += faults
        if self.strict and self.faults:
            first = self.faults[0]
            raise UserError(
                f"Line {first.line} of {first.file} cannot be used ({first.reason}); mend it, or set strict to false."
            )
        self._list_skipped(Path(self.trainer.default_root_dir) / "skipped_conversations.jsonl")
        shown = self._shown_items()
        task: Any = self.trainer.lightning_module
        identity = store_identity(self.model_name, task.distilled, self.views)
        store = ItemStore.open(self.item_store, identity, shown)
        titles = {item.id: item.title for item in shown}
        self.encoder = ChoiceEncoder(self.processor.tokenizer, titles, store, self.max_length, self.seed)
        self.samples = {
            split: training_samples(conversations, self.inject, self.seed)
            for split, conversations in self.conversations.items()
        }
        if stage == "fit" and self.max_samples is not None:
            order = np.random.default_rng(self.seed).permutation(len(self.samples["train"]))[: self.max_samples]
            self.samples["train"] = [self.samples["train"][i] for i in order]
        for split in set(splits) & {"train", "valid"}:
            if not self.samples[split]:
                raise UserError(
                    f"No conversation of the {split} split has a ground truth among its {self.candidates}; set "
                    "inject to true, or take other candidates."
                )

    def train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of `TrainingChoices`, in the order of `StepPlan`."""
        assert self.trainer is not None
        samples = self.samples["train"]
        plan = self._plan(samples, self.trainer.accumulate_grad_batches, self.seed)
        return ResumableLoader(TrainingChoices(samples, self.encoder), plan, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation samples, each once, with the controls."""
        return self._evaluation(self.samples["valid"], controls=True)

    def test_dataloader(self) -> DataLoader[Any]:
        """The test conversations with their candidates as they are, and with the controls."""
        return self._evaluation(self.conversations[self.test_split], controls=True)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test conversations without the controls."""
        return self._evaluation(self.conversations[self.test_split], controls=False)

    @property
    def skipped_reasons(self) -> dict[str, int]:
        """How many lines of the conversation files were left out, by reason."""
        return dict(Counter(fault.reason for fault in self.faults))

    @property
    def sample_counts(self) -> dict[str, int]:
        """Samples of both splits of a fit."""
        return {"train": len(self.samples["train"]), "val": len(self.samples["valid"])}

    def _shown_items(self) -> list[Item]:
        """Every item that some prompt may show; unknown ones and those without an image are counted."""
        ids = {
            item
            for conversations in self.conversations.values()
            for conversation in conversations
            for item in (*conversation.candidates, *conversation.gt_items)
        }
        known = [self.items[item] for item in sorted(ids) if item in self.items]
        imaged = sum(item.image is not None for item in known)
        log.info(
            "%d items in the conversations: %d have no metadata, %d no image", len(ids), len(ids) - len(known),
            len(ids) - imaged,
        )  # fmt: skip
        return known

    def _plan(self, cases: Sequence[Conversation | Sample], accumulate: int, seed: int | None) -> StepPlan:
        assert self.trainer is not None
        return StepPlan(
            np.array([rough_length(case, self.encoder.titles) for case in cases], dtype=np.int64),
            self._target_lengths(cases), self.batch_size,
            accumulate, self.trainer.world_size, self.trainer.global_rank, seed,
        )  # fmt: skip

    def _target_lengths(self, cases: Sequence[Conversation | Sample]) -> Any:
        """Supervised tokens of every sample; 0 for conversations, which have no target."""
        lengths = []
        for case in cases:
            if isinstance(case, Sample):
                choice = self.encoder.encode("", case.candidates[-1:], [case.target])
                lengths.append(len(choice.answers[0]) - choice.unscored)
            else:
                lengths.append(0)
        return np.array(lengths, dtype=np.int64)

    def _evaluation(self, cases: Sequence[Conversation | Sample], controls: bool) -> DataLoader[Any]:
        choices = EvaluationChoices(cases, self.encoder, controls)
        plan = self._plan(cases, accumulate=1, seed=None)
        return DataLoader(choices, batch_size=None, sampler=plan, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": _as_it_is,  # a data set's element is a whole micro-batch
        }

    def _list_skipped(self, path: Path) -> None:
        assert self.trainer is not None
        if self.trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps({**asdict(fault), "file": str(fault.file)}) + "\n" for fault in self.faults)
            path.write_text("".join(lines), encoding="utf-8")


def _as_it_is(batch: Any) -> Any:
    return batch
