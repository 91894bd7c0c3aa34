"""Knowledge from outside the image: a table with a text for each image, as CSV or TSV.

SemArt's files, for one: separated by tabs, in Latin-1, some texts beginning with a quoted word, headers in capitals.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavic.errors import UserError
from lavic.files import clean, open_utf8

SEPARATORS = "\t,;|"
FIELD = 1 << 24  # characters of one cell at most; csv's own limit of 131,072 refuses long texts


@dataclass(frozen=True)
class Knowledge:
    """What is done with questions that the image alone cannot answer.

    Args:
        mode: `use` shows such a question the table's text on its image; `filter` leaves such questions out of every
            split; `ignore` asks them like the others.
        path: the table, with a header; needed by `use`.
        image_column: header of the images' file names, in any case.
        text_column: header of the texts, in any case.
    """

    mode: Literal["use", "filter", "ignore"] = "filter"
    path: Path | None = None
    image_column: str = "image_file"
    text_column: str = "description"

    def passages(self) -> Mapping[str, str]:
        """The text of each image; empty unless the mode is `use`.

        Raises:
            UserError: `use` without a path, or the table cannot be used.
        """
        if self.mode != "use":
            return {}
        if self.path is None:
            raise UserError("knowledge.mode is use, but knowledge.path names no table; give one, or filter or ignore.")
        return read_passages(Path(self.path), self.image_column, self.text_column)


def read_passages(path: Path, image_column: str = "image_file", text_column: str = "description") -> dict[str, str]:
    """Image file name -> text, of the rows that have both; an image's first text counts.

    Raises:
        UserError: the table is missing, lacks a column, has a cell that never ends, or no row that can be used.
    """
    text = _text(path)
    header = text.split("\n", 1)[0]
    separator = max(SEPARATORS, key=header.count)
    csv.field_size_limit(FIELD)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [name.strip().casefold() for name in next(rows, [])]
        places = [_place(path, names, column) for column in (image_column, text_column)]
        passages: dict[str, str] = {}
        for row in rows:
            if len(row) > max(places) and all(row[place].strip() for place in places):
                passages.setdefault(row[places[0]].strip(), row[places[1]].strip())
    except csv.Error as error:
        raise UserError(f"{path} cannot be read in line {rows.line_num} ({error}); mend its quotes.") from None
    if not passages:
        raise UserError(f"{path} has no row with both {image_column} and {text_column}; give another table.")
    return passages


def _place(path: Path, names: list[str], column: str) -> int:
    if column.casefold() not in names:
        raise UserError(f"{path} has no column '{column}'; it has {', '.join(filter(None, names)) or 'no header'}.")
    return names.index(column.casefold())


def _text(path: Path) -> str:
    """The whole table; what is no UTF-8 is Latin-1, in which every byte is a letter."""
    with open_utf8(path) as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return clean(text.replace("\r\n", "\n").replace("\r", "\n"))
