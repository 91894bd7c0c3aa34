"""The cells of a product table -> what they mean: texts, URLs, whether something is shown or in stock."""

import html
import json
import re
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any

SIZES = ("large", "hi_res", "url", "src", "link", "thumb")  # of Amazon's sizes, the one that LaViC crawls comes first
NO = {
    "false",
    "no",
    "n",
    "0",
    "-1",
    "off",
    "disabled",
    "inactive",
    "hidden",
    "draft",
    "archived",
    "unpublished",
    "unlisted",
}
NO |= {
    "private",
    "pending",
    "trash",
    "expired",
    "removed",
    "deleted",
    "sold_out_hidden",
    "inaktiv",
    "nein",
    "non",
    "nee",
}
NO |= {"2"}  # where a status is a number, 1 is on and 2 is off (Magento)
ONLY_IN_A_GROUP = "not visible individually"
OUT = {"outofstock", "soldout", "discontinued", "unavailable", "no", "false", "0"}
LATER = {"preorder": "preorder", "presale": "preorder", "backorder": "backorder", "onbackorder": "backorder"}
PLENTY = {"unlimited", "instock", "∞"}


def text(cell: Any) -> str:
    """Returns a cell as one line of text; a list's texts joined."""
    if isinstance(cell, list):
        return " ".join(filter(None, map(text, cell)))
    if isinstance(cell, bool) or cell is None:
        return ""
    if isinstance(cell, float):
        return "" if cell != cell else str(int(cell)) if cell.is_integer() else str(cell)
    return " ".join(str(cell).split()) if isinstance(cell, str | int) else ""


def path(cell: Any) -> str:
    """Returns a category; the levels of a list with ` > ` between them."""
    return " > ".join(filter(None, map(path, cell))) if isinstance(cell, list) else prose(cell)


def prose(cell: Any) -> str:
    """Returns a cell's text without HTML: tags are spaces, entities letters, scripts and styles nothing."""
    said = text(cell)
    if "<" not in said and "&" not in said:
        return said
    if not re.search(r"<[a-zA-Z/!]", said):
        return html.unescape(said)
    reader = _Prose()
    reader.feed(said)
    reader.close()
    return " ".join("".join(reader.parts).split())


INLINE = {"a", "abbr", "b", "em", "i", "mark", "small", "span", "strong", "sub", "sup", "u"}
SILENT = {"script", "style", "template"}


class _Prose(HTMLParser):
    """Gathers what a reader of a page would read."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in SILENT
        if tag not in INLINE:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in SILENT and self._silent > 0
        if tag not in INLINE:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


def urls(cell: Any) -> list[str]:
    """Returns the URLs of a cell: a text, a list of texts or of {size: URL}, or Amazon's {size: [URL, ...]}."""
    if isinstance(cell, str):
        said = cell.strip()
        if said[:1] in ("[", "{"):
            with suppress(ValueError):
                return urls(json.loads(said))
        parts = re.split(r"(?:\s*[|;,]\s*|\s+)(?=(?:https?:)?//)", said)
        found = [part.strip(" |;,\n\t") for part in parts]
        return [f"https:{url}" if url.startswith("//") else url for url in found if url]
    if isinstance(cell, list):
        return [url for entry in cell for url in urls(entry)]
    if isinstance(cell, dict):
        sizes = [cell[size] for size in SIZES if cell.get(size)]
        if any(isinstance(size, list) for size in sizes):
            longest = max(len(size) for size in sizes if isinstance(size, list))
            entries = ({k: v[i] for k, v in cell.items() if isinstance(v, list) and i < len(v)} for i in range(longest))
            return [url for entry in entries for url in urls(entry)]
        return urls(sizes[0]) if sizes else []
    return []


def shown(cell: Any) -> bool | None:
    """Tells whether a status or a mark of publication lets customers see a product; None where it says nothing.

    What is only shown as part of a group says nothing by that (`ONLY_IN_A_GROUP`).
    """
    said = ("true" if cell else "false") if isinstance(cell, bool) else text(cell).lower()
    return None if not said or said == ONLY_IN_A_GROUP else said not in NO


def availability(cell: Any) -> str:
    """Returns `in stock`, `out of stock`, `preorder` or `backorder`, by words; "" where the cell says nothing."""
    said = ("true" if cell else "false") if isinstance(cell, bool) else text(cell).lower()
    plain = re.sub(r"[\W_]+", "", said.removeprefix("https://schema.org/").removeprefix("http://schema.org/"))
    if not plain:
        return ""
    return LATER.get(plain) or ("out of stock" if plain in OUT else "in stock")


def availability_of_count(cell: Any) -> str:
    """Returns `in stock` or `out of stock` by a number of pieces, or by a word that stands in its place."""
    said = text(cell).lower()
    with suppress(ValueError):
        return "in stock" if float(said.replace(",", ".")) > 0 else "out of stock"
    plain = re.sub(r"[\W_]+", "", said) or said
    return "in stock" if plain in PLENTY else "out of stock" if plain in OUT else ""
