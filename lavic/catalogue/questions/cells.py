"""One field of a published question -> what it says, or why it cannot be used."""

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]


class Unfit(Exception):
    """Why an entry is no question; the message is a few words."""


def text_of(fields: Fields, *names: str) -> str:
    """The text of the first of these fields that is there and not empty. Raises Unfit."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if value is not None and not isinstance(value, str):
            raise Unfit(f"{name} is not text")
    raise Unfit(f"no {' or '.join(names)}")


def optional_text(fields: Fields, *names: str) -> str:
    """The texts of these fields that are there, with a line between them."""
    return "\n".join(str(fields[name]).strip() for name in names if isinstance(fields.get(name), str) and fields[name])


def id_of(fields: Fields, key: str | None, number: int, *names: str) -> str:
    """A question's ID as text: of the first field that is there, of its key in the file, or its number."""
    written = next((fields[name] for name in names if isinstance(fields.get(name), str | int)), None)
    return str(written) if written is not None else key if key is not None else str(number)


def number_text(value: float) -> str:
    """A number as people write it as an answer: 3 and not 3.0."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)


def answers_of(value: Any) -> tuple[str, ...]:
    """The answers of a field that holds one (a text, a number), or a list of them or of `{"answer"}`. Raises Unfit."""
    if value is None:
        return ()
    answers = []
    for one in value if isinstance(value, list | tuple) else [value]:
        said = one.get("answer") if isinstance(one, Mapping) else one
        if isinstance(said, bool) or not isinstance(said, str | int | float):
            raise Unfit("answer is neither a text nor a number")
        answers.append(said if isinstance(said, str) else number_text(said))
    return tuple(answers)


def groups_of(**groups: Any) -> dict[str, tuple[str, ...]]:
    """What a benchmark breaks its numbers down by; what a question does not have is left out."""
    found = {}
    for name, value in groups.items():
        several = value if isinstance(value, list | tuple) else [value]
        if texts := tuple(str(one) for one in several if one not in (None, "")):
            found[name] = texts
    return found
