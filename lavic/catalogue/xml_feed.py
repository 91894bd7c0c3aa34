"""A product feed in XML (RSS, Atom, or a list of products) -> its rows as dictionaries, one at a time.

Prefixes such as Google Merchant's `g:` are left off the names. A document that declares entities of its own is refused:
a few lines of it can stand for gigabytes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from lavic.errors import UserError
from lavic.files import clean, open_utf8

PRODUCTS = {"item", "entry", "product", "offer", "article", "shopitem"}
BLOCK = 1 << 16


class _Reader:
    """Gathers the products whose end has been read."""

    def __init__(self) -> None:
        self.ready: list[dict[str, Any]] = []
        self._row: dict[str, Any] | None = None
        self._path: list[str] = []
        self._text: list[str] = []
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *declared: Any) -> None:
        raise UserError("it declares entities of its own")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        self._text.clear()
        if self._row is None and name.lower() in PRODUCTS:
            self._row, self._path = dict(attributes), []
        elif self._row is not None:
            self._path.append(name)
            if "href" in attributes and len(self._path) == 1:  # Atom's links
                self._add(name, attributes["href"])

    def _end(self, tag: str) -> None:
        said = clean("".join(self._text)).strip()
        self._text.clear()
        if self._row is None:
            return
        if not self._path:
            self.ready.append(self._row)
            self._row = None
            return
        if said:
            self._add(" ".join(self._path), said)
        self._path.pop()

    def _add(self, name: str, said: str) -> None:
        assert self._row is not None
        known = self._row.get(name)
        self._row[name] = said if known is None else [*(known if isinstance(known, list) else [known]), said]


def is_xml(path: Path) -> bool:
    """Tells whether a file begins as XML does."""
    with open_utf8(path) as stream:
        return stream.read(4096).lstrip()[:1] == b"<"


def read_xml(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where each product of a feed stands, and its elements by their names; of several of one name, a list.

    Raises:
        UserError: the file is no whole XML document, or declares entities.
    """
    reader, number = _Reader(), 0
    with open_utf8(path) as stream:
        try:
            while block := stream.read(BLOCK):
                reader.parser.Parse(block, False)
                for row in reader.ready:
                    number += 1
                    yield f"product {number}", row
                reader.ready.clear()
            reader.parser.Parse(b"", True)
        except (expat.ExpatError, UserError) as error:
            raise UserError(f"The feed {path} cannot be read behind product {number} ({error}); mend it.") from None
