"""Rows of a long test or predict, on disk as they come: whatever ends the run, the answers given so far stay.

They stand in a file of their own, `partial_NAME`, beside the whole result `NAME`, which only a whole one replaces.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lavic.files import write_text


class PartialRows:
    """The rows of one result in the making; with several processes, one file for each, numbered by rank.

    Args:
        whole: the file that the whole result will have, JSON lines.
        rank: this process's number.
        world_size: how many there are.
    """

    def __init__(self, whole: Path, rank: int = 0, world_size: int = 1) -> None:
        self.whole = whole
        number = f".{rank}" if world_size > 1 else ""
        self.path = whole.with_name(f"partial_{whole.stem}{number}{whole.suffix}")

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to this process's file. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", errors="lavic.files") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def files(self, of: str = "partial_") -> list[Path]:
        """Returns every process's file, also those of earlier runs; with `of` empty the whole result's."""
        name = re.compile(rf"{of}{re.escape(self.whole.stem)}(\.\d+)?{re.escape(self.whole.suffix)}")
        there = self.whole.parent.iterdir() if self.whole.parent.is_dir() else ()
        return sorted(path for path in there if name.fullmatch(path.name))

    def discard(self) -> None:
        """Removes every process's file; one process calls it, while no other adds rows."""
        for path in self.files():
            path.unlink(missing_ok=True)

    def go_on(self) -> None:
        """Makes what there is ready for more rows: a whole result counts as begun, and half a last line goes.

        One process calls it, while no other adds rows.
        """
        if not self.files():
            for path in self.files(of=""):
                path.replace(path.with_name(f"partial_{path.name}"))
        for path in self.files():
            lines = path.read_bytes().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                write_text(path, b"".join(lines[:-1]).decode())

    def complete(self) -> None:
        """Gives all files the whole result's names, in the place of an earlier one's; one process calls it."""
        partial = self.files()
        names = {path: path.with_name(path.name.removeprefix("partial_")) for path in partial}
        for path in partial:
            path.replace(names[path])
        for path in set(self.files(of="")) - set(names.values()):
            path.unlink(missing_ok=True)  # of an earlier run on another number of processes
