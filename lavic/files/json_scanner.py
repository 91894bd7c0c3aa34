"""A window that moves over a JSON file's text and holds one value at a time; `json_entries.py` says what for."""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavic.errors import UserError
from lavic.files import clean, decoded, naming_faults, open_utf8
from lavic.files.rejected import Rejected

CHUNK = 1 << 16  # bytes read at a time
LINES = {".jsonl", ".ndjson", ".jl"}

_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a JSON file.

    Attributes:
        where: `line 3` of JSON lines, `entry 3` of a list, the key of an object's member.
        value: what it holds.
        key: of an object's member, else None.
        repeated: keys that stand in it twice.
        place: the bytes of the file's UTF-8 text, (first, behind the last), that hold the value.
    """

    where: str
    value: Any
    key: str | None = None
    repeated: tuple[str, ...] = ()
    place: tuple[int, int] = field(default=(0, 0), compare=False)


class Scanner:
    """A window on a file's text: it grows until a JSON value fits, and drops what was read.

    Bytes that are no UTF-8 come as lone surrogates (`surrogateescape`), so that the line is known in which they stand
    when an entry is looked at, and the lines before and behind it can still be read.
    """

    def __init__(self, path: Path, limit: int | None) -> None:
        self._path, self._limit = path, limit
        self._stream = open_utf8(path)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.repeated: list[str] = []
        self._json = first_keys_decoder(self.repeated)
        self.place = (0, 0)  # of the value that was read last, as in `Entry`
        self._text = ""
        self._at = self._counted = 0
        self._line = 1  # of `_text[_counted]`
        self._byte = self._measured = 0  # `_text[_measured]` begins at the file's byte `_byte`
        self._ended = False

    def __enter__(self) -> "Scanner":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def next_character(self) -> str:
        """The first one behind white space, which is skipped; empty at the file's end."""
        while True:
            while self._at < len(self._text):
                if (character := self._text[self._at]) not in " \t\r\n":
                    return character
                self._at += 1
            if not self._more():
                return ""

    def value(self) -> Any:
        """The JSON value that comes next. Raises UserError."""
        self.next_character()
        start = self._at
        while True:
            self.repeated.clear()
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # a value that the window cuts fails at the window's end, or at the start of a string
                cut = error.pos >= len(self._text) - 16 or error.msg.startswith("Unterminated")
                if not (cut and self._more()):
                    raise self.malformed(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:
                what = "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
                raise self.malformed(what) from None
            else:
                if self._text[end - 1] in '}]"' or end < len(self._text) or not self._more():
                    break
        self._at = end
        self.place = (self._byte_of(start), self._byte_of(end))
        raw = self._text[start:end]
        if not raw.isascii() and (mended := decoded(raw, self._path, self._line_of(start))) is not raw:
            self.repeated.clear()
            value = self._json.decode(mended)
        return without_halves(value, raw)

    def first(self, longest: int) -> tuple[Any, str | None]:
        """The file's first value if it ends within `longest` characters, and what it fills; nothing is consumed.

        It fills `the file`, `a line` of several, or is one of `several` that span lines; None if it is longer.
        """
        start, limit, self._limit = self._at, self._limit, longest
        byte, measured = self._byte, self._measured
        try:
            value = self.value()
            end = self._at
            if not self.next_character():
                return value, "the file"
            if "\n" not in self._text[end : self._at] and suffix(self._path) not in LINES:
                raise self.malformed("more follows behind its end")
            return value, "several" if "\n" in self._text[start:end] else "a line"
        except _TooLong:
            return None, None
        finally:
            self._at, self._limit = start, limit
            self._byte, self._measured = byte, measured

    def elements(self) -> Iterator[Entry]:
        """The elements of the list that comes next."""
        number = 0
        closed = self._opens("]")
        while not closed:
            number += 1
            value = self.value()
            yield Entry(f"entry {number}", value, None, tuple(self.repeated), self.place)
            closed = self._closes("]")
        self._end()

    def members(self) -> Iterator[Entry]:
        """The members of the object that comes next, those with a key that has come before too."""
        closed = self._opens("}")
        while not closed:
            if self.next_character() != '"':
                raise self.malformed("a key in double quotes is expected")
            key = self.value()
            if self.next_character() != ":":
                raise self.malformed("':' is expected")
            self._at += 1
            value = self.value()
            yield Entry(key, value, key, tuple(self.repeated), self.place)
            closed = self._closes("}")
        self._end()

    def lines(self) -> Iterator[Entry | Rejected]:
        """Each line's value, or why it has none. Raises UserError for a line without an end."""
        self._at = 0
        number = 0
        while (line := self._next_line()) is not None:
            number += 1
            where = f"line {number}"
            self.repeated.clear()
            try:
                if not (text := json_text(line, self._path, number)):
                    continue
                value = self._json.decode(text)
            except UserError:
                yield Rejected(where, "not UTF-8")
                continue
            except RecursionError:
                yield Rejected(where, "nested too deeply")
                continue
            except ValueError as error:
                yield Rejected(
                    where, f"not valid JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}"
                )
                continue
            yield Entry(where, without_halves(value, text), None, tuple(self.repeated), self.place)

    def malformed(self, what: str, place: int | None = None) -> UserError:
        """The error for what stands at `place` of the window, or comes next."""
        line = self._line_of(self._at if place is None else place)
        return UserError(f"{self._path} is not valid JSON in line {line} ({what}); mend or remove what stands there.")

    def _next_line(self) -> str | None:
        self._forget()
        while (end := self._text.find("\n", self._at)) < 0:
            if not self._more():
                end = len(self._text)
                if self._at >= end:
                    return None
                break
        line = self._text[self._at : end]
        self.place = (self._byte_of(self._at), self._byte_of(end))
        self._at = end + 1
        return line

    def _opens(self, bracket: str) -> bool:
        """Steps into a list or an object; True if `bracket` ends it at once."""
        self._at += 1
        empty = self.next_character() == bracket
        self._at += empty
        return empty

    def _closes(self, bracket: str) -> bool:
        self._forget()
        character = self.next_character()
        if character not in (",", bracket):
            raise self.malformed(f"',' or '{bracket}' is expected")
        self._at += 1
        return character == bracket

    def _end(self) -> None:
        if self.next_character():
            raise self.malformed("more follows behind its end")

    def _line_of(self, place: int) -> int:
        """The number of the line at a place of the window."""
        self._line += self._text.count("\n", self._counted, place) - self._text.count("\n", place, self._counted)
        self._counted = place
        return self._line

    def _byte_of(self, place: int) -> int:
        """Which byte of the file's text a place of the window is; places are asked in their order."""
        between = self._text[self._measured : place]
        self._byte += len(between) if between.isascii() else len(between.encode("utf-8", "surrogateescape"))
        self._measured = place
        return self._byte

    def _forget(self) -> None:
        if self._at > CHUNK:
            self._line, self._byte = self._line_of(self._at), self._byte_of(self._at)
            self._text, self._at, self._counted, self._measured = self._text[self._at :], 0, 0, 0

    def _more(self) -> bool:
        """Reads on, twice as much each time that a value does not fit; False at the file's end."""
        if self._ended:
            return False
        waiting = len(self._text) - self._at
        if self._limit is not None and waiting > self._limit:
            raise _TooLong(f"{self._path} has an entry of over {waiting} characters in line {self._line_of(self._at)}.")
        with naming_faults(self._path):
            data = self._stream.read(max(CHUNK, waiting))
        self._ended = not data
        self._text += self._decoder.decode(data, final=self._ended)
        return not self._ended


class _TooLong(UserError):
    """An entry that the window does not hold."""


def json_text(written: str, source: Path, line: int) -> str:
    """An entry's text without white space and byte order mark around it. Raises UserError where it is no UTF-8."""
    return decoded(written, source, line).strip().lstrip("\ufeff")


def first_keys_decoder(repeated: list[str]) -> json.JSONDecoder:
    """Of two equal keys in one object the first counts; the second is added to `repeated`."""

    def keep_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(pairs)
        if len(kept) < len(pairs):
            kept = {}
            for key, value in pairs:
                if key in kept:
                    repeated.append(key)
                kept.setdefault(key, value)
        return kept

    return json.JSONDecoder(object_pairs_hook=keep_first)


def without_halves(value: Any, written: str) -> Any:
    """A JSON value without the halves that its text `written` may have as escapes."""
    return _cleaned(value) if "\\u" in written and _ESCAPED_HALF.search(written) else value


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _cleaned(item) for key, item in value.items()}
    return value


def suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()
