"""VQA's data module: files of questions, their images, and a knowledge table."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset

from lavic.batching.controls import partners_of
from lavic.batching.step_plan import Lengths, MicroBatch
from lavic.catalogue.image_checks import ImageChecks
from lavic.catalogue.images import BrokenImage, open_image
from lavic.errors import UserError
from lavic.model.seen_batch import SeenBatch, TaughtBatch
from lavic.ranges import check_ranges
from lavic.retrieval.passages import Knowledge
from lavic.tasks.base import TaskData
from lavic.tasks.vqa.encoding import QuestionEncoder, question_reader
from lavic.tasks.vqa.prompt import INSTRUCTION, Question
from lavic.tasks.vqa.questions import QuestionTable, load_questions
from lavic.training.protocols import ShownSample


class AskedBatch(TypedDict):
    """Questions to answer, and the same under the controls; of a ghost, nothing."""

    questions: list[dict[str, Any]]  # those whose image is whole
    errors: list[tuple[dict[str, Any], str]]  # the others, and why they cannot be asked
    described: list[int]  # places of the questions that `no_description` asks
    own: NotRequired[SeenBatch]
    no_image: NotRequired[SeenBatch]
    shuffled_images: NotRequired[SeenBatch]
    no_description: NotRequired[SeenBatch]
    taught: NotRequired[SeenBatch]  # with their answers, for the loss of a validation
    taught_shuffled_images: NotRequired[SeenBatch]
    taught_no_image: NotRequired[SeenBatch]


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
        home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        self.cache_dir = Path(cache_dir) if cache_dir else home / "lavic"
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
            self.tables[split], _, left_out = load_questions(
                self.files[split], checks, self.knowledge, passages, split, self.cache_dir, self.streaming
            )
            self.left_out += left_out
            self.sample_counts[split] = len(self.tables[split])
        checks.save()

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


class TaughtQuestions(Dataset[TaughtBatch]):
    """Micro-batches of prompts with their answers."""

    def __init__(self, questions: Any, images_dir: Path, encoder: QuestionEncoder) -> None:
        self.questions, self.images_dir, self.encoder = questions, images_dir, encoder

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, micro_batch: MicroBatch) -> TaughtBatch:
        """The batch of a step plan's entry."""
        questions = [self.questions[i] for i in micro_batch.indices]
        try:
            images = [open_image(self.images_dir / question.image) for question in questions]
        except BrokenImage as broken:
            names = ", ".join(question.image for question in questions)
            raise UserError(
                f"An image of {names} in {self.images_dir} was whole when the run began and is not any more ({broken});"
                " restore it and start again with --resume."
            ) from None
        taught = self.encoder.batch(questions, images, answers=True, ghost=micro_batch.ghost)
        return {**taught, "step_targets": micro_batch.step_targets, "rows": micro_batch.indices}


class AskedQuestions(Dataset[AskedBatch]):
    """Micro-batches of prompts to answer, and the same under the controls.

    Args:
        table: the questions.
        images_dir: folder of their images.
        encoder: makes the prompts.
        partners: for each row another, whose image the `shuffled_images` control shows.
        taught: whether a batch also holds the prompts with their answers, for the loss of a validation.
        controls: whether a batch holds the controls.
    """

    def __init__(
        self,
        table: QuestionTable,
        images_dir: Path,
        encoder: QuestionEncoder,
        partners: npt.NDArray[np.int64] | None,
        taught: bool,
        controls: bool,
    ) -> None:
        self.table, self.images_dir, self.encoder = table, images_dir, encoder
        self.partners, self.taught, self.controls = partners, taught, controls

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, micro_batch: MicroBatch) -> AskedBatch:
        """The batch of a step plan's entry."""
        asked: AskedBatch = {"questions": [], "errors": [], "described": []}
        if micro_batch.ghost:
            return asked
        images, rows, questions = [], [], []
        for row in micro_batch.indices:
            question = self.table[row]
            try:
                images.append(open_image(self.images_dir / question.image))
            except BrokenImage as broken:
                asked["errors"].append((asdict(question), str(broken)))
                continue
            questions.append(question)
            rows.append(row)
        asked["questions"] = [asdict(question) for question in questions]
        if not questions:
            return asked
        asked["own"] = self.encoder.batch(questions, images, answers=False)
        others = self._partner_images(rows, images)
        if self.taught:
            asked["taught"] = self.encoder.batch(questions, images, answers=True)
            asked["taught_shuffled_images"] = self.encoder.batch(questions, others, answers=True)
            asked["taught_no_image"] = self.encoder.batch(questions, None, answers=True)
        if self.controls and not self.taught:
            asked["no_image"] = self.encoder.batch(questions, None, answers=False)
            asked["shuffled_images"] = self.encoder.batch(questions, others, answers=False)
            asked["described"] = [i for i, question in enumerate(questions) if question.description]
            if asked["described"]:
                asked["no_description"] = self.encoder.batch(
                    [questions[i] for i in asked["described"]],
                    [images[i] for i in asked["described"]],
                    answers=False,
                    description=False,
                )
        return asked

    def _partner_images(self, rows: Sequence[int], own: Sequence[Image.Image]) -> list[Image.Image]:
        """Another image in the place of each one's own; its own where the other has broken since."""
        if self.partners is None:
            return list(own)
        found = []
        for row, image in zip(rows, own, strict=True):
            try:
                found.append(open_image(self.images_dir / self.table[int(self.partners[row])].image))
            except BrokenImage:
                found.append(image)
        return found
