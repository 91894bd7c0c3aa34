"""What cannot be used of the files that users give: where it stands and why, and the list that is written of it."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lavic.files import write_text


@dataclass(frozen=True, slots=True)
class Rejected:
    """One thing that cannot be used: a line, an entry, an item, an image, a sample.

    Attributes:
        where: what names it, such as `line 3`, an item's ID or an image's file name.
        reason: why it cannot be used, in a few words.
        split: the data split that it would have belonged to; empty where there is none.
    """

    where: str
    reason: str
    split: str = ""

    def line(self) -> str:
        """Returns its line of a list: a JSON object, `split` in front where there is one."""
        split = {"split": self.split} if self.split else {}
        return json.dumps({**split, "where": self.where, "reason": self.reason}, ensure_ascii=False) + "\n"

    def of_split(self, split: str) -> "Rejected":
        """Returns the same as one of `split`."""
        return Rejected(self.where, self.reason, split)


def reasons(rejected: Iterable[Rejected]) -> dict[str, int]:
    """Counts the rejected by reason."""
    return dict(Counter(entry.reason for entry in rejected))


def reasons_text(rejected: Iterable[Rejected], most_common: int | None = None) -> str:
    """Returns the same as people read it: all reasons in their order, or the most common ones; empty for none."""
    counts = Counter(reasons(rejected))
    shown = counts.items() if most_common is None else counts.most_common(most_common)
    return ", ".join(f"{count} x {reason}" for reason, count in shown)


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Writes a JSON object a line; an empty file says that nothing was rejected. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(entry.line() for entry in rejected))


def as_json(rejected: Iterable[Rejected]) -> list[dict[str, str]]:
    """Returns them as JSON's objects, of which `Rejected(**object)` makes them again."""
    return [asdict(entry) for entry in rejected]
