"""Samples that could not be used: counted where the user looks, and listed in a file."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lavic.files import write_text


@dataclass(frozen=True)
class LeftOut:
    """A sample that could not be used: its split, where it stands (a file's line, an item, an image), and why."""

    split: str
    where: str
    reason: str


def reasons(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """How many were left out, by reason."""
    return dict(Counter(entry.reason for entry in left_out))


def reasons_text(left_out: Sequence[LeftOut]) -> str:
    """The same as people read it."""
    return ", ".join(f"{count} x {reason}" for reason, count in reasons(left_out).items()) or "none"


def write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    """A JSON object a line; an empty file says that nothing was left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(asdict(entry)) + "\n" for entry in left_out))
