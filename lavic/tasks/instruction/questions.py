"""A file of questions -> prompts for `predict`, and its answers in the form that the file has.

LLaVA-Bench's form, a line a question: `{"question_id", "image", "text"}`, answered by `{"question_id", "prompt",
"text", "answer_id", "model_id", "metadata"}`. Or instruction records, of either form, whose last turn is the question;
what was said before is read by the model, and an answer that stands behind the question is not: it is returned as
`answer`.
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from lavic.batching.padding import pad_left
from lavic.catalogue.images import BrokenImage, image_size
from lavic.catalogue.records import Record, parse_question
from lavic.errors import UserError
from lavic.files.json_entries import Entry, read_entries
from lavic.files.rejected import Rejected
from lavic.model.chat_text import ChatText
from lavic.model.image_entry import ImageReader
from lavic.tasks.instruction.batches import Images, RecordPrompts


class Question(NamedTuple):
    """One to answer; a tuple, which Lightning carries to the device as it is.

    Attributes:
        id: as the file has it.
        row: `images`, their `sizes` (width, height) and `image_tokens`, and the prompt's `input_ids`.
        asked: the question's text.
        answer: the file's own, if it has one.
        bench: whether the file has LLaVA-Bench's form.
    """

    id: str | int
    row: dict[str, Any]
    asked: str
    answer: str | None
    bench: bool

    def answered(self, text: str, model: str) -> dict[str, Any]:
        """The line of the answers' file."""
        if self.bench:
            name = uuid.uuid5(uuid.NAMESPACE_OID, f"{model}\n{self.id}\n{text}").hex
            answer = {"question_id": self.id, "prompt": self.asked, "text": text, "answer_id": name}
            return {**answer, "model_id": model, "metadata": {}}
        known = {} if self.answer is None else {"answer": self.answer}
        return {"id": self.id, "images": self.row["images"], "question": self.asked, **known, "generated": text}


def read_questions(
    path: Path, images_dir: Path | None, chat: ChatText, reader: ImageReader, max_length: int
) -> tuple[list[Question], list[Rejected]]:
    """The questions that can be asked, in their order, and the others.

    Raises:
        UserError: the file cannot be read, or none of it can be asked.
    """
    questions: list[Question] = []
    left_out: list[Rejected] = []
    for number, entry in enumerate(read_entries(path, _is_question), 1):
        if isinstance(entry, Rejected):
            found: Question | str = entry.reason
        else:
            found = _read(entry, number, images_dir, chat, reader, max_length)
        if isinstance(found, Question):
            questions.append(found)
        else:
            left_out.append(Rejected(entry.where, found, "questions"))
    if not questions:
        why = f"; the first is left out because of: {left_out[0].reason}" if left_out else ""
        raise UserError(f"No question of {path} can be asked{why}; give LLaVA-Bench's form or instruction records.")
    return questions, left_out


def _read(
    entry: Entry, number: int, images_dir: Path | None, chat: ChatText, reader: ImageReader, max_length: int
) -> Question | str:
    """One question, or why it cannot be asked."""
    value = entry.value
    bench = isinstance(value, dict) and "question_id" in value and "text" in value
    if bench:
        turn = {"from": "human", "value": value["text"]}
        value = {"id": value["question_id"], "image": value.get("image"), "conversations": [turn]}
    parsed = parse_question(value, entry.key or str(number))
    if isinstance(parsed, str):
        return parsed
    record, answer = parsed
    row = _row(record, images_dir, chat, reader, max_length)
    if isinstance(row, str):
        return row
    return Question(entry.value["question_id"] if bench else record.id, row, record.turns[-1].text, answer, bench)


def _row(
    record: Record, images_dir: Path | None, chat: ChatText, reader: ImageReader, max_length: int
) -> dict[str, Any] | str:
    """A record's images and the tokens of its prompt, or why it cannot be asked."""
    if record.images and images_dir is None:
        return "image missing"
    try:
        sizes = [image_size(Path(images_dir or "") / name) for name in record.images]
    except BrokenImage as broken:
        return str(broken)
    counts = [reader.count(*size) for size in sizes]
    encoded = chat.encode(record.turns, counts, record.system, max_length)
    if isinstance(encoded, str):
        return encoded
    return {"images": list(record.images), "sizes": sizes, "image_tokens": counts, "input_ids": encoded.input_ids}


def _is_question(value: dict[str, Any]) -> bool:
    return any(name in value for name in ("conversations", "messages", "question_id"))


class QuestionPrompts(Images, Dataset[RecordPrompts]):
    """Questions as prompts, `batch_size` of one kind and of like length at a time, this process's share.

    Args:
        questions: all of them.
        done: how many questions of each ID, as text, are answered already.
        images_dir: folder of their images.
        reader: cuts the images.
        batch_size: prompts of a batch.
        rank: this process's number.
        world_size: how many there are.
    """

    def __init__(
        self,
        questions: list[Question],
        done: Mapping[str, int],
        images_dir: Path | None,
        reader: ImageReader,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(images_dir, reader)
        left = Counter(done)
        open_ones = []
        for question in questions:
            if left[str(question.id)] > 0:
                left[str(question.id)] -= 1
            else:
                open_ones.append(question)
        own = open_ones[rank::world_size]
        self.batches: list[list[Question]] = []
        for seen in (False, True):  # text alone does not run the tower
            kind = sorted(
                (question for question in own if bool(question.row["images"]) == seen),
                key=lambda question: len(question.row["input_ids"]),
            )
            self.batches += [kind[i : i + batch_size] for i in range(0, len(kind), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> RecordPrompts:
        """The prompts of a batch, whose samples are the questions."""
        chosen = self.batches[index]
        rows = [question.row for question in chosen]
        padded = pad_left([row["input_ids"] for row in rows], self.pad_id)
        return {**padded, **self.images(rows), "samples": chosen}
