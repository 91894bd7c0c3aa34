"""Instruction records -> conversations of questions and answers, each with the images that stand in it.

LLaVA's form, `{"id", "image": NAME or [NAME], "conversations": [{"from": "human" | "gpt", "value"}]}`, and that of
messages, `{"messages": [{"role": "user" | "assistant", "content"}], "images": [NAME]}`, as a list or as JSON lines. A
system text is `system` or `system_prompt`, or the first of `messages`. What is odd is settled here, once:

- An image token (`<image>`) stands before its turn's text, on a line of its own, wherever it was written in the turn.
- One image and a token in several questions: the first counts. An image without any token: it stands in the first
  question. Any other count, or a token in an answer: left out.
- An answer that nothing asked for, at the start, and a question without answer, at the end, are dropped. An empty
  answer ends the conversation before its question. Images of what is dropped are dropped with it.
- Two turns of one speaker in a row, an unknown speaker, or no pair that is left: left out.

Every record of a file is either used or listed with its reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from lavic.files.json_entries import read_entries
from lavic.files.rejected import Rejected

IMAGE_TOKEN = "<image>"

Role = Literal["user", "assistant"]
FORMS = (("conversations", "from", "value"), ("messages", "role", "content"))  # the list, who speaks, what
ROLES: dict[str, Role] = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one of the two says.

    Attributes:
        role: who says it.
        text: what is said.
        images: how many of the record's images, the next in order, belong to it.
        place: the letter of the text before which they stand; None puts them before it, each with a line break.
    """

    role: Role
    text: str
    images: int = 0
    place: int | None = None

    @property
    def images_before(self) -> int:
        """How many images stand before the text, each with a line break."""
        return self.images if self.place is None else 0

    def written(self) -> str:
        """Returns the text, with its images where they stand within it."""
        if self.place is None:
            return self.text
        return self.text[: self.place] + IMAGE_TOKEN * self.images + self.text[self.place :]


@dataclass(frozen=True, slots=True)
class Record:
    """One training example.

    Attributes:
        id: as written, always text: `000000033471` keeps its zeros.
        turns: question, answer, question, answer, ...
        images: names of the images, in the order of the turns.
        system: the system text; None is the template's own.
        changes: what was settled to make it usable, in words.
        place: where its object stands in the file, as `Entry.place`; of a record that was read from one.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...] = ()
    system: str | None = None
    changes: tuple[str, ...] = ()
    place: tuple[int, int] = field(default=(0, 0), compare=False)


class _Fault(Exception):
    """Why a record cannot be used."""


def read_records(path: Path) -> Iterator[Record | Rejected]:
    """A file's records in their order, one at a time.

    Raises:
        UserError: the file cannot be read, or not from some record on.
    """
    for number, entry in enumerate(read_entries(path, _is_record), 1):
        if isinstance(entry, Rejected):
            yield entry
            continue
        try:
            yield replace(parse_record(entry.value, entry.key or str(number)), place=entry.place)
        except _Fault as fault:
            yield Rejected(_where(entry.value, entry.where), str(fault))


def parse_record(value: Any, number: str) -> Record:
    """One record; `number` is its ID where it has none."""
    if not isinstance(value, dict):
        raise _Fault("not an object")
    images = _images(value)
    turns, system = _turns(value)
    first, changes = 0, []
    if turns[0].role == "assistant":
        first = 1
        changes.append("answer without question dropped")
    _check_alternation(turns[first:])
    turns = _place_images(turns, images, changes)
    kept = turns[first:]
    if any(turn.images for turn in turns[:first]):
        raise _Fault(f"{IMAGE_TOKEN} in an answer")
    if len(kept) % 2:
        kept = kept[:-1]
        changes.append("question without answer dropped")
    for place in range(1, len(kept), 2):
        if not kept[place].text.strip():
            kept = kept[: place - 1]
            changes.append("cut before an empty answer")
            break
    if not kept:
        raise _Fault("no question with an answer")
    shown = sum(turn.images for turn in kept)
    return Record(_id(value, number), tuple(kept), tuple(images[:shown]), system, tuple(changes))


def parse_question(value: Any, number: str) -> tuple[Record, str | None] | str:
    """A record up to its last question, and the answer that stands behind it if one does; or why it cannot be asked."""
    answered = True
    for name, speaker, said in FORMS if isinstance(value, dict) else ():
        last = written[-1] if isinstance(written := value.get(name), list) and written else None
        if isinstance(last, dict) and ROLES.get(str(last.get(speaker))) == "user":
            answered = False
            value = {**value, name: [*value[name], {speaker: "assistant", said: "-"}]}
    try:
        record = parse_record(value, number)
    except _Fault as fault:
        return str(fault)
    return replace(record, turns=record.turns[:-1]), record.turns[-1].text.strip() if answered else None


def _turns(value: dict[str, Any]) -> tuple[list[Turn], str | None]:
    """The turns as written, their image tokens still in the text, and the system text."""
    form = next((form for form in FORMS if form[0] in value), None)
    if form is None:
        raise _Fault("neither conversations nor messages")
    name, speaker, said = form
    written = value[name]
    if not isinstance(written, list) or not written:
        raise _Fault(f"{name} is empty" if written in ([], None) else f"{name} is not a list")
    system = _system(value)
    turns = []
    for number, turn in enumerate(written):
        if not isinstance(turn, dict):
            raise _Fault(f"turn {number + 1} is not an object")
        role, text = turn.get(speaker), turn.get(said)
        if text is None and ROLES.get(str(role)) == "assistant":
            text = ""
        if not isinstance(text, str):
            raise _Fault(f"{said} of turn {number + 1} is not text")
        if name == "messages" and role == "system" and number == 0:
            system = text.strip() or system
        elif not isinstance(role, str) or role not in ROLES:
            raise _Fault(f"unknown role '{role}'")
        else:
            turns.append(Turn(ROLES[role], text))
    if not turns:
        raise _Fault(f"{name} holds no question")
    return turns, system


def _check_alternation(turns: Sequence[Turn]) -> None:
    for earlier, later in pairwise(turns):
        if earlier.role == later.role:
            raise _Fault(f"two turns of the {'user' if later.role == 'user' else 'assistant'} in a row")


def _place_images(turns: list[Turn], images: Sequence[str], changes: list[str]) -> list[Turn]:
    """The turns without image tokens in their text, but with the number of their images. Raises _Fault."""
    tags = [turn.text.count(IMAGE_TOKEN) for turn in turns]
    if any(tag and turn.role == "assistant" for tag, turn in zip(tags, turns, strict=True)):
        raise _Fault(f"{IMAGE_TOKEN} in an answer")
    total, counts = sum(tags), list(tags)
    if len(images) == 1 and total > 1:
        first = next(i for i, tag in enumerate(tags) if tag)
        counts = [int(i == first) for i in range(len(turns))]
        changes.append(f"{IMAGE_TOKEN} repeated for one image")
    elif images and not total:
        asked = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
        if asked is None:
            raise _Fault("no question with an answer")
        counts[asked] = len(images)
        changes.append(f"image without {IMAGE_TOKEN}")
    elif total != len(images):
        raise _Fault(f"{total} x {IMAGE_TOKEN} for {len(images)} images" if images else f"{IMAGE_TOKEN} but no image")
    return [
        replace(turn, text=turn.text.replace(IMAGE_TOKEN, "").strip() if tag else turn.text, images=count)
        for turn, tag, count in zip(turns, tags, counts, strict=True)
    ]


def _images(value: dict[str, Any]) -> list[str]:
    """The names of a record's images, of either form."""
    written = value.get("image") if value.get("image") is not None else value.get("images")
    names = [] if written is None or written == "" else written if isinstance(written, list) else [written]
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise _Fault("image is not a name")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise _Fault("image is not inside the images' folder")
    return list(names)


def _system(value: dict[str, Any]) -> str | None:
    for name in ("system", "system_prompt"):
        text = value.get(name)
        if text is not None and not isinstance(text, str):
            raise _Fault(f"{name} is not text")
        if text and text.strip():
            return text
    return None


def _is_record(value: dict[str, Any]) -> bool:
    return "conversations" in value or "messages" in value


def _id(value: dict[str, Any], number: str) -> str:
    written = value.get("id")
    return number if written is None or isinstance(written, dict | list) or not str(written) else str(written)


def _where(value: Any, where: str) -> str:
    written = _id(value, "") if isinstance(value, dict) else ""
    return f"{where} (id {written})" if written else where
