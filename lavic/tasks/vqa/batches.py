"""VQA's data sets: questions as micro-batches, to learn from or to be asked, made whole in the loader's workers."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from lavic.batching.step_plan import MicroBatch
from lavic.catalogue.image_checks import open_checked
from lavic.catalogue.images import BrokenImage, open_image
from lavic.model.multimodal_batch import MultimodalBatch, SupervisedBatch
from lavic.tasks.vqa.encoding import QuestionEncoder
from lavic.tasks.vqa.length import LengthLimit
from lavic.tasks.vqa.prompt import Question
from lavic.tasks.vqa.table import QuestionTable


class AskedBatch(TypedDict):
    """Questions to answer, and the same under the controls; of a ghost, nothing."""

    questions: list[dict[str, Any]]  # those whose image is whole
    errors: list[tuple[dict[str, Any], str]]  # the others, and why they cannot be asked
    described: list[int]  # places of the questions that `no_description` asks
    own: NotRequired[MultimodalBatch]
    no_image: NotRequired[MultimodalBatch]
    shuffled_images: NotRequired[MultimodalBatch]
    no_description: NotRequired[MultimodalBatch]
    taught: NotRequired[MultimodalBatch]  # with their answers, for the loss of a validation
    taught_shuffled_images: NotRequired[MultimodalBatch]
    taught_no_image: NotRequired[MultimodalBatch]


class TaughtQuestions(Dataset[SupervisedBatch]):
    """Micro-batches of prompts with their answers."""

    def __init__(self, questions: Any, images_dir: Path, encoder: QuestionEncoder) -> None:
        self.questions, self.images_dir, self.encoder = questions, images_dir, encoder

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, micro_batch: MicroBatch) -> SupervisedBatch:
        """The batch of a step plan's entry."""
        questions = [self.questions[i] for i in micro_batch.indices]
        images = [open_checked(self.images_dir / question.image) for question in questions]
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
        self.limit = LengthLimit(encoder, answer=taught)

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
                image = open_image(self.images_dir / question.image)
            except BrokenImage as broken:
                asked["errors"].append((asdict(question), str(broken)))
                continue
            if self.limit.exceeded_by(question, image.size):  # it fitted when the table was made: the image has changed
                asked["errors"].append((asdict(question), "too long for max_length"))
                continue
            images.append(image)
            questions.append(question)
            rows.append(row)
        asked["questions"] = [asdict(question) for question in questions]
        if not questions:
            return asked
        asked["own"] = self.encoder.batch(questions, images, answers=False)
        others = self._partner_images(rows, questions, images)
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

    def _partner_images(
        self, rows: Sequence[int], questions: Sequence[Question], own: Sequence[Image.Image]
    ) -> list[Image.Image]:
        """Another image in the place of each one's own; its own where the other has broken since.

        One with which the question gets too long is shown at the size of the question's own.
        """
        if self.partners is None:
            return list(own)
        found = []
        for row, question, image in zip(rows, questions, own, strict=True):
            try:
                other = open_image(self.images_dir / self.table[int(self.partners[row])].image)
            except BrokenImage:
                other = image
            too_long = self.limit.exceeded_by(question, other.size)
            found.append(other.resize(image.size) if too_long else other)
        return found
