"""VQA's data module: files of questions, their images, and a knowledge table."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from lavic.batching.cached_table import cache_folder
from lavic.batching.controls import partners_of
from lavic.batching.step_plan import Lengths
from lavic.catalogue.image_checks import ImageChecks
from lavic.catalogue.images import open_image
from lavic.errors import UserError
from lavic.ranges import check_ranges
from lavic.retrieval.passages import Knowledge
from lavic.tasks.base import TaskData
from lavic.tasks.vqa.batches import AskedQuestions, TaughtQuestions
from lavic.tasks.vqa.encoding import QuestionEncoder, question_reader
from lavic.tasks.vqa.length import LengthLimit
from lavic.tasks.vqa.prompt import INSTRUCTION, Question
from lavic.tasks.vqa.table import QuestionTable, load_questions
from lavic.training.protocols import ShownSample


class VqaData(TaskData):
    """Questions about images, for `lavic.tasks.vqa.Vqa`.

    Args:
        train_data: questions to train on: image, question, answer, need_external_knowledge; `.json`, `.jsonl`, `.gz`.
        val_data: questions to validate with.
        test_data: questions that `test` and `predict` ask.
        images_dir: folder of the images.
        knowledge: what is done with questions that the image alone cannot answer; the same in every split.
        instruction: what stands before every image; the same in fit, validate, test and predict.
        controls: whether `test` also asks without the image, with another's, and without what is known from outside.
        max_length: tokens of a prompt and its answer at most, image tokens among them; longer ones lose the end of
            what is known from outside.
        batch_size: questions of one forward pass on one device.
        max_samples: train on a random choice of that many questions (by the seed); null takes all.
        num_workers: processes that decode images, for each device.
        streaming: read each question from its file when it is asked for; the same batches as without.
        strict: stop at the first question that cannot be used, instead of listing it in skipped_samples.jsonl.
        model_name: whose processor is used (set by the command line from the model's own name).
        seed: of the questions' order and choice (set by the command line from seed_everything).
        cache_dir: folder of the tables of questions; null means ~/.cache/lavic.
    """

    def __init__(
        self,
        train_data: Path = Path("data/aqua/train.json"),
        val_data: Path = Path("data/aqua/val.json"),
        test_data: Path = Path("data/aqua/test.json"),
        images_dir: Path = Path("data/aqua/Images"),
        knowledge: Knowledge = Knowledge(),  # noqa: B008  (frozen)
        instruction: str = INSTRUCTION,
        controls: bool = True,
        max_length: int = 4096,
        batch_size: int = 1,
        max_samples: int | None = None,
        num_workers: int = 4,
        strict: bool = False,
        model_name: str = "llava-hf/llava-v1.6-mistral-7b-hf",
        seed: int = 42,
        cache_dir: Path | None = None,
        streaming: bool = False,
    ) -> None:
        super().__init__(batch_size, max_samples, num_workers, strict, model_name, seed)
        check_ranges(max_length=max_length)
        self.files = {"train": Path(train_data), "val": Path(val_data), "test": Path(test_data)}
        self.images_dir, self.knowledge, self.instruction = Path(images_dir), knowledge, instruction
        self.controls, self.max_length, self.streaming = controls, max_length, streaming
        self.cache_dir = cache_folder(cache_dir)
        self.tables: dict[str, QuestionTable] = {}

    def prepare_data(self) -> None:
        """On one process only: makes the tables that the cache does not hold yet."""
        self._load(self.trainer.state.fn if self.trainer else "fit")

    def setup(self, stage: str) -> None:
        """On every process: maps the tables of the splits that a stage needs."""
        self._load(stage)
        self.announce()

    def _load(self, stage: str | None) -> None:
        splits = {"fit": ("train", "val"), "validate": ("val",)}.get(stage or "", ("test",))
        if all(split in self.tables for split in splits):
            return
        if not self.images_dir.is_dir():
            raise UserError(f"There is no folder of images {self.images_dir}; give it by data.init_args.images_dir.")
        reader = question_reader(self.model_name)
        self.processor = reader.processor  # saved beside an adapter
        self.encoder = QuestionEncoder(reader, self.instruction, self.max_length)
        passages = self.knowledge.passages()
        checks = ImageChecks(self.images_dir, self.cache_dir)
        for split in splits:
            limit = LengthLimit(self.encoder, answer=split != "test")
            self.tables[split], _, rejected = load_questions(
                self.files[split], checks, self.knowledge, passages, split, self.cache_dir, self.streaming, limit
            )
            self.left_out += rejected
            self.sample_counts[split] = len(self.tables[split])

    def dataset(self, split: str) -> Dataset[Any]:
        """Micro-batches to learn from, or to be asked with the controls of a validation or a test."""
        if split == "train":
            return TaughtQuestions(self._chosen(), self.images_dir, self.encoder)
        table = self.tables[split]
        partners = partners_of(table.image_numbers(), self.seed)
        return AskedQuestions(table, self.images_dir, self.encoder, partners, split == "val", self.controls)

    def lengths(self, split: str) -> tuple[Lengths, Lengths]:
        """Letters of each question, which grow with its tokens, and tokens of its answer."""
        table = self.tables[split]
        if split != "train":
            return table.letters(), np.zeros(len(table), dtype=np.int32)
        answers, which = table.answers()
        lengths, tokens = table.letters(), np.array(self.encoder.answer_tokens(answers), dtype=np.int32)[which]
        return (lengths, tokens) if self._takes_all() else (lengths[self._rows()], tokens[self._rows()])

    def fingerprint(self) -> str:
        """Of the training questions, in their order, and of what stands before them."""
        what = [self.tables["train"].content_hash(), self.instruction, self.knowledge.mode, self.max_samples]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def test_dataloader(self) -> DataLoader[Any]:
        """The test's questions, each once."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test's questions without controls."""
        asked = AskedQuestions(self.tables["test"], self.images_dir, self.encoder, None, False, False)
        return DataLoader(asked, batch_size=None, sampler=self.plan("test"), **self.loader_options())

    def shown_samples(self, count: int) -> list[ShownSample]:
        """`count` validation questions, chosen by chance but the same each time."""
        table = self.tables["val"]
        shown = []
        for row in np.random.default_rng(0).permutation(len(table))[:count].tolist():
            question = table[row]
            image = open_image(self.images_dir / question.image)
            batch = self.encoder.batch([question], [image], answers=False)
            pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
            fields = {"image": question.image, "question": question.question}
            shown.append(ShownSample(batch, pixels, fields, question.answer))
        return shown

    def sample_names(self, rows: Sequence[int]) -> list[str]:
        """The images and questions of these training samples."""
        table, chosen = self.tables["train"], self._rows()
        asked = [table[int(chosen[row])] for row in rows]
        return [f"{question.image} ({question.question})" for question in asked]

    def _takes_all(self) -> bool:
        return self.max_samples is None or self.max_samples >= len(self.tables["train"])

    def _rows(self) -> npt.NDArray[np.int64]:
        """The questions that are trained on; all in their order, or a choice by chance."""
        count = len(self.tables["train"])
        if self._takes_all():
            return np.arange(count)
        chosen: npt.NDArray[np.int64] = np.random.default_rng(self.seed).permutation(count)[: self.max_samples]
        return chosen

    def _chosen(self) -> QuestionTable | Subset[Question]:
        table = self.tables["train"]
        return table if self._takes_all() else Subset(table, self._rows())  # type: ignore[arg-type]
