"""VQAv2's and OK-VQA's answers, which stand in a file of their own: found by their question's ID, read when asked."""

from pathlib import Path
from typing import Any

import numpy as np

from lavic.errors import UserError
from lavic.files.json_entries import Entry
from lavic.files.json_lists import read_listed
from lavic.files.json_places import PlacedEntries

LIST = ("annotations",)


class Annotations:
    """Where each question's answers stand in their file: 24 bytes a question in memory.

    Args:
        path: the file of annotations.
        cache_dir: an existing folder, for a copy of the file if it is compressed.

    Raises:
        UserError: the file cannot be read, or holds no annotations.
    """

    def __init__(self, path: Path, cache_dir: Path) -> None:
        self.path = path
        self.header: dict[str, Any] = {}
        rows = [
            (entry.value["question_id"], *entry.place)
            for entry in read_listed(path, LIST, self.header, "question_id")
            if isinstance(entry, Entry) and isinstance(entry.value, dict) and _is_id(entry.value.get("question_id"))
        ]
        if not rows:
            raise UserError(
                f"{path} holds no annotations with a question_id; give the benchmark's file of annotations."
            )
        table = np.array(rows, dtype=np.int64)
        table = table[np.argsort(table[:, 0], kind="stable")]
        if (repeated := table[1:][np.diff(table[:, 0]) == 0]).size:
            raise UserError(f"{path} has two annotations of question {repeated[0, 0]}; remove one of them.")
        self._ids, self._places = table[:, 0].copy(), table[:, 1:].copy()
        self._entries = PlacedEntries(path, cache_dir)

    def __len__(self) -> int:
        return len(self._ids)

    def of(self, question_id: Any) -> dict[str, Any] | None:
        """A question's annotation; None where it has none."""
        if not _is_id(question_id):
            return None
        place = int(np.searchsorted(self._ids, question_id))
        if place == len(self._ids) or self._ids[place] != question_id:
            return None
        found: dict[str, Any] = self._entries.read(*(int(byte) for byte in self._places[place]))
        return found


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
