"""JSON files of any shape -> their entries: one object, a list, or JSON lines, whatever the name says.

Memory holds an entry at a time, whatever the file's size. Bare NaN and Infinity are read, and half an emoji becomes
U+FFFD (`lavic/files/`). Of two equal keys in one object the first counts, and the second is reported. (ijson, which
streams too, refuses NaN and turns half an emoji into a question mark.)
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lavic.errors import UserError
from lavic.files.json_scanner import LINES, Entry, Scanner, suffix
from lavic.files.rejected import Rejected

__all__ = ["Entry", "read_entries", "read_json"]

LONGEST = 16 << 20  # characters of one entry: a damaged file must not be read into memory as one
RECORD = 1 << 17  # characters within which a file's first value is looked at whole


def read_json(path: Path) -> Any:
    """The value of a whole JSON file, for files that fit into memory. Raises UserError."""
    with Scanner(path, limit=None) as scanner:
        value = scanner.value()
        if scanner.next_character():
            raise scanner.malformed("more follows behind its end")
        return value


def read_entries(
    path: Path, is_record: Callable[[dict[str, Any]], bool] = lambda _: True
) -> Iterator[Entry | Rejected]:
    """The entries of a JSON file: a list's elements, the records of JSON lines, or an object's members.

    A file that holds one small object holds one record, if `is_record` says so of it.

    Raises:
        UserError: the file cannot be read, or not from some line on. A bad line of JSON lines is passed on instead.
    """
    named_lines = suffix(path) in LINES
    with Scanner(path, LONGEST) as scanner:
        if not scanner.next_character():
            return
        try:
            first, spans = scanner.first(LONGEST if named_lines else RECORD)
        except UserError:
            if named_lines:
                yield from scanner.lines()
                return
            first, spans = None, None
        if spans == "a line":
            yield from scanner.lines()
        elif spans == "several":
            raise UserError(
                f"{path} holds several JSON values that span lines; write each in one line, or make a list."
            )
        elif spans == "the file" and not isinstance(first, list) and (not isinstance(first, dict) or is_record(first)):
            yield Entry("line 1", first, None, tuple(scanner.repeated), scanner.place)
        elif scanner.next_character() == "[":
            yield from scanner.elements()
        elif scanner.next_character() == "{":
            yield from scanner.members()
        else:
            scanner.value()
            raise scanner.malformed("neither an object nor a list")
