"""The cells of a product table -> what they mean: texts, URLs, prices, whether something is shown or in stock."""

import html
import json
import re
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any

SIZES = ("large", "hi_res", "url", "src", "link", "thumb")  # of Amazon's sizes, the one that LaViC crawls comes first
SYMBOLS = {"€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY", "₹": "INR", "zł": "PLN", "₩": "KRW", "₺": "TRY", "₽": "RUB"}
NUMBER = re.compile(r"\d[\d.,'’\s\u00a0\u202f]*")
CODE = re.compile(r"\b[A-Z]{3}\b")
NO = {"false", "no", "n", "0", "-1", "off", "disabled", "inactive", "hidden", "draft", "archived", "unpublished"}
NO |= {"not visible individually", "private", "pending", "trash", "expired", "sold_out_hidden", "inaktiv", "nein"}
OUT = {"out of stock", "out_of_stock", "outofstock", "sold out", "discontinued", "unavailable", "no", "false", "0"}


def text(cell: Any) -> str:
    """Returns a cell as one line of text; a list's texts joined."""
    if isinstance(cell, list):
        return " ".join(filter(None, map(text, cell)))
    if isinstance(cell, bool) or cell is None:
        return ""
    if isinstance(cell, float):
        return "" if cell != cell else str(int(cell)) if cell.is_integer() else str(cell)
    return " ".join(str(cell).split()) if isinstance(cell, str | int) else ""


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


def price(cell: Any) -> tuple[float, str] | None:
    """Returns the amount and the currency's code ("" where it is not said) of a price as shops write it.

    The last comma or point divides the cents where one or two figures follow it: `1.234,56 €`, `USD 12.99`, `1,234`.
    """
    said = text(cell)
    found = NUMBER.search(said)
    if found is None:
        return None
    figures = re.sub(r"[\s'’\u00a0\u202f]", "", found[0]).rstrip(".,")
    cents = re.search(r"[.,](\d{1,2}|\d{4,})$", figures)
    if cents:
        whole, rest = figures[: cents.start()], cents[1]
        figures = f"{re.sub(r'[.,]', '', whole) or '0'}.{rest}"
    else:
        figures = re.sub(r"[.,]", "", figures)
    code = CODE.search(said.replace(found[0], " "))
    symbol = next((name for sign, name in SYMBOLS.items() if sign in said), "")
    return float(figures), code[0] if code else symbol


def shown(cell: Any) -> bool | None:
    """Tells whether a status or a mark of publication lets customers see a product; None where it says nothing."""
    said = ("true" if cell else "false") if isinstance(cell, bool) else text(cell).lower()
    return None if not said else said not in NO


def in_stock(cell: Any, counts: bool) -> bool | None:
    """Tells whether something can be bought, by its availability or, with `counts`, by a number of pieces."""
    said = ("true" if cell else "false") if isinstance(cell, bool) else text(cell).lower()
    if not said:
        return None
    if counts:
        with suppress(ValueError):
            return float(said) > 0
        return None
    return said.replace("https://schema.org/", "") not in OUT
