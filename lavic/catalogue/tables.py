"""A product table of any form -> its rows as dictionaries, one at a time, in constant memory.

CSV and TSV (delimiter and encoding found), Parquet, JSON, JSON lines, XML feeds; all but Parquet under gzip too. What a
file holds decides, not its name.
"""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lavic.catalogue.xml_feed import is_xml, read_xml
from lavic.errors import UserError
from lavic.files import clean, naming_faults, open_utf8
from lavic.files.json_entries import read_entries
from lavic.files.rejected import Rejected

DELIMITERS = (",", "\t", ";", "|")
FALLBACK = "cp1252"  # of tables that are not UTF-8: what Excel writes in the West
_LONGEST_CELL = 16 << 20

Row = tuple[str, Any]
"""Where a row stands, and its cells by column; or a text, why it cannot be read."""


def read_rows(
    path: Path, encoding: str | None = None, progress: Callable[[float], None] = lambda _: None
) -> Iterator[Row]:
    """The rows of a table.

    Args:
        path: the file.
        encoding: of a CSV, TSV or XML feed; found when None.
        progress: is told the share of the file that has been read, where that is known.

    Raises:
        UserError: the file cannot be read as any of these.
    """
    with naming_faults(path):
        if path.is_file() and _starts_with(path, b"PAR1"):
            yield from _parquet(path, progress)
        elif encoding is None and _is_json(path):
            yield from _json(path)
        elif is_xml(path):
            yield from read_xml(path, encoding)
        else:
            yield from _delimited(path, encoding or _found_encoding(path), progress)


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _is_json(path: Path) -> bool:
    with open_utf8(path) as stream:
        return stream.read(4096).lstrip()[:1] in (b"{", b"[")


def _parquet(path: Path, progress: Callable[[float], None]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
            progress(number / max(1, file.metadata.num_rows))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"The Parquet table {path} cannot be read ({str(error).splitlines()[0]}).") from None


def _json(path: Path) -> Iterator[Row]:
    def is_product(value: dict[str, Any]) -> bool:
        return not all(isinstance(member, dict) for member in value.values())  # else products by their IDs

    for entry in read_entries(path, is_product):
        if isinstance(entry, Rejected):
            yield entry.where, entry.reason
        elif not isinstance(entry.value, dict):
            yield entry.where, "not an object"
        else:
            yield entry.where, entry.value if entry.key is None else {"id": entry.key, **entry.value}


def _delimited(path: Path, encoding: str, progress: Callable[[float], None]) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    size = max(1, path.stat().st_size)
    with path.open("rb") as raw, _text(raw, path, encoding) as text:
        line = 1
        try:
            head = text.readline()
            if not head.strip():
                raise UserError(f"The table {path} has an empty first line; it must name the columns.")
            delimiter = max(DELIMITERS, key=lambda d: len(next(csv.reader([head], delimiter=d))))
            columns = _distinct([clean(name).strip() for name in next(csv.reader([head], delimiter=delimiter))])
            reader = csv.reader(text, delimiter=delimiter)
            for number, cells in enumerate(reader):
                line = reader.line_num + 1
                if len(cells) > len(columns):
                    yield f"line {line}", f"{len(cells)} cells, but {len(columns)} columns"
                elif any(cells):
                    yield f"line {line}", {name: clean(cell) for name, cell in zip(columns, cells, strict=False)}
                if number % 500 == 0:
                    progress(raw.tell() / size)
        except (csv.Error, UnicodeError) as error:
            raise UserError(
                f"The table {path} cannot be read behind line {line} ({error}); mend it, or give its --encoding."
            ) from None


def _distinct(names: list[str]) -> list[str]:
    """Gives columns without a name one, and those that repeat another's a number, so that no cell is lost."""
    found: dict[str, None] = {}
    for place, name in enumerate(names, 1):
        name = name or f"column {place}"
        copies = (f"{name} {number}" for number in range(2, len(names) + 2))
        found[name if name not in found else next(copy for copy in copies if copy not in found)] = None
    return list(found)


def _text(raw: Any, path: Path, encoding: str) -> io.TextIOWrapper:
    if encoding == "utf-8":
        return io.TextIOWrapper(open_utf8(raw), encoding="utf-8", newline="")
    try:
        return io.TextIOWrapper(raw, encoding=encoding, newline="")
    except LookupError:
        raise UserError(f"'{encoding}' is no encoding; give one such as utf-8, cp1252 or gb18030 for {path}.") from None


def _found_encoding(path: Path) -> str:
    """UTF-8 (what `open_utf8` makes UTF-8 of), or else `FALLBACK`."""
    with open_utf8(path) as stream, io.TextIOWrapper(stream, encoding="utf-8") as text:
        try:
            while text.read(1 << 20):
                pass
        except UnicodeError:
            return FALLBACK
    return "utf-8"
