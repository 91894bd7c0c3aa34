"""Entries that stand in a list within an object, as in `{"info": ..., "questions": [...]}`: one at a time, too.

What stands beside the list is its header. An object without such a list, a plain list and JSON lines are read as
`read_entries` reads them.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lavic.files.json_entries import RECORD, Entry, read_entries
from lavic.files.json_scanner import LINES, Scanner, suffix
from lavic.files.rejected import Rejected

LONGEST = 16 << 20  # characters of one entry, or of one member beside the list
BESIDE = 16  # members that may stand before the list; an object with more is one of entries by their keys


class _Lists(Scanner):
    def listed(self, names: Collection[str], header: dict[str, Any]) -> Iterator[Entry]:
        """The elements of the first member of the object that comes next that has such a name and is a list."""
        waiting: list[Entry] = []
        found = False
        closed = self._opens("}")
        while not closed:
            if self.next_character() != '"':
                raise self.malformed("a key in double quotes is expected")
            key = self.value()
            if self.next_character() != ":":
                raise self.malformed("':' is expected")
            self._at += 1
            if not found and key in names and self.next_character() == "[":
                found = True
                header.update({entry.where: entry.value for entry in waiting})
                yield from self._elements()
            else:
                entry = Entry(key, self.value(), key, tuple(self.repeated), self.place)
                if found:
                    header[key] = entry.value
                elif len(waiting) < BESIDE:
                    waiting.append(entry)
                else:
                    names = ()
                    yield from waiting
                    waiting = [entry]
            closed = self._closes("}")
        if not found:
            yield from waiting
        self._end()

    def _elements(self) -> Iterator[Entry]:
        number = 0
        closed = self._opens("]")
        while not closed:
            number += 1
            value = self.value()
            yield Entry(f"entry {number}", value, None, tuple(self.repeated), self.place)
            closed = self._closes("]")


def read_listed(
    path: Path, names: Collection[str], header: dict[str, Any], is_record_key: str
) -> Iterator[Entry | Rejected]:
    """The entries of a file, wherever they stand.

    Args:
        path: the file.
        names: of the member that may hold them.
        header: is given what stands beside that member; what stands behind it, when the entries have been read.
        is_record_key: an object that has this member is itself an entry.

    Raises:
        UserError: as `read_entries`.
    """
    scanner = _Lists(path, LONGEST)
    with scanner:
        if suffix(path) not in LINES and scanner.next_character() == "{":
            first, spans = scanner.first(RECORD)
            if first is None or (spans == "the file" and isinstance(first, dict) and is_record_key not in first):
                yield from scanner.listed(names, header)
                return
    yield from read_entries(path, lambda value: is_record_key in value)
