"""A product feed in XML (RSS, Atom, or a list of products) -> its rows as dictionaries, one at a time.

Prefixes such as Google Merchant's `g:` are left off the names; where a name is given with and without one, the prefixed
one counts and the other keeps a name of its own. A document that declares entities of its own is refused: a few lines
of it can stand for gigabytes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from lavic.errors import UserError
from lavic.files import clean, open_utf8

PRODUCTS = {"item", "entry", "product", "offer", "article", "shopitem"}
BLOCK = 1 << 16
LONGEST = 16 << 20  # characters of one product: a damaged feed must not be read into memory as one
DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
BLOCKS = {"br", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ol", "p", "table", "tbody", "td", "th", "tr", "ul"}
HTML = BLOCKS | {"a", "b", "em", "i", "small", "span", "strong", "sub", "sup", "u"}


@dataclass
class _Element:
    """An element of a product, with its texts and elements in their order."""

    tag: str
    attributes: dict[str, str]
    parts: "list[str | _Element]" = field(default_factory=list)

    def text(self) -> str:
        """Returns all text in it, as a page would show it."""
        said = "".join(part if isinstance(part, str) else part.text() for part in self.parts)
        return f" {said} " if self.tag.lower() in BLOCKS else said

    def cells(self, above: str = "") -> Iterator[tuple[str, str]]:
        """Yields names and texts; elements within elements have both names, but a page's within a text are its own."""
        prefix, _, name = self.tag.rpartition(":")
        name = f"{above} {name}" if above else f"{prefix}:{name}" if prefix else name
        elements = [part for part in self.parts if isinstance(part, _Element)]
        own = "".join(part for part in self.parts if isinstance(part, str)).strip()
        if own or (elements and all(element.tag.lower() in HTML for element in elements)):
            yield name, " ".join(self.text().split(" ")).strip()
        else:
            for element in elements:
                yield from element.cells(name)
        if "href" in self.attributes and not above:  # Atom's links
            yield name, self.attributes["href"]


class _Reader:
    """Gathers the products whose end has been read."""

    def __init__(self, encoding: str | None) -> None:
        self.ready: list[dict[str, Any]] = []
        self._open: list[_Element] = []
        self._length = 0
        self.parser = expat.ParserCreate(encoding)
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._say
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *declared: Any) -> None:
        raise UserError("it declares entities of its own")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._open or tag.rpartition(":")[2].lower() in PRODUCTS:
            element = _Element(tag, attributes)
            if self._open:
                self._open[-1].parts.append(element)
            self._open.append(element)

    def _say(self, text: str) -> None:
        if self._open:
            self._length += len(text)
            if self._length > LONGEST:
                raise UserError(f"a product has more than {LONGEST:,} characters")
            self._open[-1].parts.append(text)

    def _end(self, tag: str) -> None:
        if not self._open:
            return
        element = self._open.pop()
        if not self._open:
            self.ready.append(_row(element))
            self._length = 0


def _row(product: _Element) -> dict[str, Any]:
    found: dict[str, list[str]] = {name: [value] for name, value in product.attributes.items()}
    for part in product.parts:
        for name, said in part.cells() if isinstance(part, _Element) else ():
            found.setdefault(name, []).append(clean(said))
    prefixed = {name.partition(":")[2]: name for name in found if ":" in name}
    row: dict[str, Any] = {}
    for name, texts in found.items():
        shorter = name.partition(":")[2] or (f"{name} of the feed" if name in prefixed else name)
        if shorter in row or (":" in name and prefixed[shorter] != name):
            shorter = name
        row[shorter] = texts[0] if len(texts) == 1 else texts
    return row


def is_xml(path: Path) -> bool:
    """Tells whether a file begins as XML does."""
    with open_utf8(path) as stream:
        return stream.read(4096).lstrip()[:1] == b"<"


def read_xml(path: Path, encoding: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where each product of a feed stands, and its elements by their names; of several of one name, a list.

    Args:
        path: the feed.
        encoding: of the feed; what it declares itself when None.

    Raises:
        UserError: the file is no whole XML document, declares entities, or has an encoding that is not known.
    """
    number = 0
    with open_utf8(path) as stream:
        declared = DECLARED.match(stream.peek(BLOCK)[:400])
        named = encoding or (declared[1].decode() if declared else "utf-8")
        reader = _Reader("utf-8" if named.lower().startswith(("utf-16", "utf-32", "ucs")) else named)
        try:
            while block := stream.read(BLOCK):
                reader.parser.Parse(block, False)
                for row in reader.ready:
                    number += 1
                    yield f"product {number}", row
                reader.ready.clear()
            reader.parser.Parse(b"", True)
        except (expat.ExpatError, UserError, LookupError, ValueError) as error:
            raise UserError(f"The feed {path} cannot be read behind product {number} ({error}); mend it.") from None
