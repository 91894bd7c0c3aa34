"""Stage 2's data module: LaViC's conversation files, the catalogue, and the item store."""

import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from lavic.catalogue.conversations import Conversation, Sample, read_category_split, training_samples
from lavic.catalogue.items import Item, read_items
from lavic.errors import UserError
from lavic.files.rejected import Rejected
from lavic.model.processor import load_processor
from lavic.model.views import Views
from lavic.ranges import check_ranges
from lavic.tasks.base import TaskData
from lavic.tasks.recommendation.batches import ChoiceEncoder, EvaluationChoices, TrainingChoices, rough_length
from lavic.tasks.recommendation.candidates import NOTHING_MATCHES, parse_retrieved, retrieve_candidates
from lavic.tasks.recommendation.item_store import ItemStore, store_identity

log = logging.getLogger(__name__)


class RecommendationData(TaskData):
    """Conversations with candidates, for `lavic.tasks.recommendation.Recommendation`.

    Args:
        data_dir: folder of the categories' folders, each with train.jsonl, valid.jsonl and test.jsonl.
        categories: the categories' names; several are used together, and reported one by one too.
        candidates: field of the conversation files that holds the candidates, such as candidates_st; or retrieved:K,
            the K items of the catalogue that a conversation's own words find (`retrieved.py`).
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
            skipped_samples.jsonl.
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
        super().__init__(batch_size, max_samples, num_workers, strict, model_name, seed)
        check_ranges(max_length=max_length)
        if not categories:
            raise UserError("categories is empty; name at least one, such as all_beauty.")
        self.data_dir, self.categories, self.candidates = Path(data_dir), list(categories), candidates
        self.retrieved = parse_retrieved(candidates)
        if self.retrieved:
            self.candidates = self.retrieved.field
        self.metadata, self.images_dirs = [Path(p) for p in metadata], [Path(p) for p in images_dirs]
        self.item_store, self.views, self.inject = Path(item_store), views, inject
        self.max_length, self.test_split = max_length, test_split
        self.conversations: dict[str, list[Conversation]] = {}
        self.unmatched: dict[str, list[Conversation]] = {}  # for which nothing was retrieved
        self.samples: dict[str, list[Sample]] = {}

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
            self._read(split)
        shown = self._shown_items()
        task: Any = self.trainer.lightning_module
        identity = store_identity(self.model_name, task.distilled, self.views)
        store = ItemStore.open(self.item_store, identity, shown)
        titles = {item.id: item.title for item in shown}
        self.encoder = ChoiceEncoder(self.processor.tokenizer, titles, store, self.max_length, self.seed)
        for split in new:
            self._leave_out_too_long(split)
        self.announce()

    def _leave_out_too_long(self, split: str) -> None:
        """Lists the cases of a split whose candidates do not fit into a prompt, before one of them ends a run.

        Raises:
            UserError: none is left; in the words of the first.
        """
        name = "val" if split == "valid" else split
        several: list[dict[str, Any]] = [self.samples] if name in self.samples else []
        several += [self.conversations] if split == self.test_split else []
        verdicts: dict[tuple[Sequence[str], Sequence[str]], bool] = {}
        for cases, key in ((c, name if c is self.samples else split) for c in several):
            kept = []
            for case in cases[key]:
                answers = [case.target] if name == "train" else case.candidates
                shown = (tuple(case.candidates), tuple(answers))
                if shown not in verdicts:
                    verdicts[shown] = self.encoder.fits(*shown)
                if verdicts[shown]:
                    kept.append(case)
                    continue
                source = case.conversation if isinstance(case, Sample) else case
                where = f"line {source.line} of category {source.category}"
                self.left_out.append(Rejected(where, "too long for max_length", name))
            if cases[key] and not kept:
                self.encoder.encode("", *shown)  # raises
            cases[key], self.sample_counts[name] = kept, len(kept)

    def _read(self, split: str) -> None:
        """Reads a published split; `valid` is called `val` wherever it is shown."""
        key = None if self.retrieved else self.candidates
        conversations, rejected = read_category_split(self.data_dir, self.categories, split, key)
        name = "val" if split == "valid" else split
        if self.retrieved:
            found = retrieve_candidates(conversations, self.items, self.metadata, self.retrieved)
            self.unmatched[split] = [c for c in found if not c.candidates]
            conversations = [c for c in found if c.candidates]
            if not conversations:
                raise UserError(
                    f"Nothing in the catalogue's {self.retrieved.searched} matches any conversation of the {split} "
                    "split; index descriptions too, or take other candidates."
                )
            self.left_out += [
                Rejected(f"line {c.line} of category {c.category}", NOTHING_MATCHES, name)
                for c in self.unmatched[split]
            ]
        self.conversations[split] = conversations
        self.left_out += [entry.of_split(name) for entry in rejected]
        if split not in ("train", "valid"):
            self.sample_counts[name] = len(conversations)
            return
        samples = training_samples(conversations, self.inject, self.seed)
        if split == "train" and self.max_samples is not None:
            order = np.random.default_rng(self.seed).permutation(len(samples))[: self.max_samples]
            samples = [samples[i] for i in order]
        if not samples:
            raise UserError(
                f"No conversation of the {split} split has a ground truth among its {self.candidates}; set inject to"
                " true, or take other candidates."
            )
        self.samples[name], self.sample_counts[name] = samples, len(samples)

    def dataset(self, split: str) -> TrainingChoices | EvaluationChoices:
        """The samples to train on; those to validate with, and conversations to test with, beside the controls."""
        if split == "train":
            return TrainingChoices(self.samples["train"], self.encoder)
        return EvaluationChoices(self._cases(split), self.encoder, controls=split != "predict")

    def lengths(self, split: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Letters of each case, and supervised tokens of those that have a target."""
        cases = self._cases(split)
        rough = np.array([rough_length(case, self.encoder.titles) for case in cases], dtype=np.int64)
        return rough, np.array([self._target_length(case) for case in cases], dtype=np.int64)

    def longest_id(self) -> int:
        """Tokens of the longest ID that an answer can name, its end counted."""
        ids = self.processor.tokenizer(list(self.items), add_special_tokens=False)["input_ids"]
        return max(map(len, ids)) + 1

    def fingerprint(self) -> str:
        """Of the training conversations, their candidates and their targets."""
        digest = sha256()
        for sample in self.samples["train"]:
            shown = (sample.conversation.context, sample.candidates, sample.target)
            digest.update(repr(shown).encode(errors="replace"))
        return digest.hexdigest()[:16]

    def test_dataloader(self) -> DataLoader[Any]:
        """The test conversations with their candidates as they are, and with the controls."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test conversations without the controls."""
        return self.evaluation_loader("predict")

    def _cases(self, split: str) -> Sequence[Conversation | Sample]:
        return self.samples[split] if split in ("train", "val") else self.conversations[self.test_split]

    def _target_length(self, case: Conversation | Sample) -> int:
        if not isinstance(case, Sample):
            return 0
        choice = self.encoder.encode("", case.candidates[-1:], [case.target])
        return len(choice.answers[0]) - choice.unscored

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
