"""Rows of a product table -> products, of which `product_groups.py` brings together those that belong together."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lavic.catalogue import product_cells as cells
from lavic.catalogue.descriptions import escapes_folder
from lavic.catalogue.product_columns import Columns, find_columns, plain
from lavic.catalogue.product_groups import in_a_row, wherever
from lavic.catalogue.product_prices import price
from lavic.catalogue.products import VARIED, Named, Product

AHEAD = 1000  # rows that are looked at for columns that say which rows belong together
HIDDEN_VARIANT = "a variant that is not shown to customers"
ONE = ("description", "brand", "category", "link", "currency")
# words for how a product is sold, which shops write where others say what it is
SOLD_AS = {
    "simple",
    "variable",
    "variation",
    "grouped",
    "external",
    "configurable",
    "virtual",
    "bundle",
    "downloadable",
}
SOLD_AS |= {"physical", "digital", "service"}
PART = {"variant", "variation", "sku", "rule", "image", "media", "video"}  # rows that go on with the product before
LISTED = 200  # columns that are named on the screen

LeaveOut = Callable[[str, str], None]


class ProductRows:
    """Reads products from rows; rows of JSON may have other fields each, so every row is looked at by its own names.

    Args:
        given: columns of fields that the user named.
        file: the table, for messages.
        leave_out: is told what cannot be used, and why.
    """

    def __init__(self, given: Mapping[str, str | Sequence[str]], file: Path, leave_out: LeaveOut) -> None:
        self._given, self._file, self._leave_out = given, file, leave_out
        self._known: dict[tuple[str, ...], Columns] = {}
        self._id_column = ""  # one for a whole file
        self._groups = False
        self._before: Product | None = None
        self._said: dict[str, dict[str, None]] = {}
        self.rows = 0

    def products(self, rows: Iterable[tuple[str, Any]], beside: Path) -> Iterator[Product]:
        """Yields one product for all rows that belong to it; `beside` is a file that may be made for the while."""
        found = self._read(rows)
        first = list(islice(found, AHEAD))
        together = chain(first, found)
        yield from wherever(together, beside) if self._groups else in_a_row(together)

    def said(self) -> Iterator[str]:
        """Yields the lines that tell which column became what."""
        others = self._said.pop("attributes", {})
        yield "columns: " + "; ".join(f"{what}: {', '.join(names)}" for what, names in self._said.items())
        if others:
            more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
            yield f"kept as attributes: {', '.join(islice(others, LISTED))}{more}"

    def _read(self, rows: Iterable[tuple[str, Any]]) -> Iterator[Product]:
        for where, row in rows:
            self.rows += 1
            if isinstance(row, str):
                self._before = None  # it may have been the product that the next rows go on with
                self._leave_out(where, row)
            elif (product := self._product(row, where)) is not None:
                yield product

    def _columns(self, names: tuple[str, ...]) -> Columns:
        if names not in self._known:
            self._known = {} if len(self._known) > AHEAD else self._known
            columns = find_columns(names, self._given, self._file, required=not self._id_column)
            self._id_column = self._id_column or columns.by_field["id"][0]
            columns.by_field["id"] = [name for name in names if name == self._id_column]
            self._known[names] = columns
            self._groups = self._groups or columns.groups
            options = {"options": [name for pair in columns.options for name in pair]}
            for what, found in (columns.by_field | options | {"attributes": columns.others}).items():
                if found and len(self._said.get(what, ())) <= 10 * LISTED:
                    self._said.setdefault(what, {}).update(dict.fromkeys(found))
        return self._known[names]

    def _product(self, row: Mapping[str, Any], where: str) -> Product | None:
        columns = self._columns(tuple(row))
        own = _first(row, columns, "id", cells.text)
        title = _first(row, columns, "title", cells.prose)
        group = _first(row, columns, "group", cells.text)
        kind = _first(row, columns, "row_kind", cells.text).lower()
        item, named = group.removeprefix("id:") or own, _named(group, own)
        if not group and (kind in PART if own and not columns.groups else columns.has_variants and not own):
            if (title and kind not in PART) or self._before is None:
                self._leave_out(where, "no ID")
                return None
            item, named = self._before.id, self._before.named
        part = named != "own" or item != own
        if not part:
            self._before = None
        if not item:
            self._leave_out(where, "no ID")
            return None
        if "/" in item or "\\" in item or escapes_folder(item) or len(item.encode()) > 200:
            self._leave_out(where, "an ID that cannot be part of a file name")
            return None
        shown, only_in_group = _shown(row, columns)
        if part and shown is False:
            self._leave_out(f"{where}: {item}", HIDDEN_VARIANT)
            return None
        product = Product(item, title, self._images(row, columns, where), where=where, named=named)
        product.shown, product.only_in_group = shown, only_in_group
        position = _first(row, columns, "image_position", cells.text)
        if position.isdecimal():
            product.positions = {url: float(position) for url in product.images[:1]}
        _fill(product, row, columns)
        if columns.by_field["group"] and not part:
            names = (cells.text(row[name]) for name in row if plain(name) in ("sku", "id", "productnumber"))
            product.aliases = [name for name in names if name and name != own]
        variations = _first(row, columns, "variations", cells.text)
        product.members = [sku.strip() for sku in re.findall(r"(?:^|\|)\s*sku=([^,|]+)", variations)]
        self._before = product
        return product

    def _images(self, row: Mapping[str, Any], columns: Columns, where: str) -> list[str]:
        images: dict[str, None] = {}
        for name in columns.by_field["images"]:
            for url in cells.urls(row.get(name)):
                if url.startswith(("http://", "https://")):
                    images[url] = None
                else:
                    self._leave_out(f"{where}: {url[:200]}", "an image that is not a URL")
        return list(images)


def _named(group: str, own: str) -> Named:
    if not group or group == own:
        return "own"
    return "id" if group.startswith("id:") else "any"


def _first(row: Mapping[str, Any], columns: Columns, what: str, read: Callable[[Any], str]) -> str:
    return next((said for name in columns.by_field[what] if (said := read(row.get(name)))), "")


def _shown(row: Mapping[str, Any], columns: Columns) -> tuple[bool | None, bool]:
    """Tells whether customers see it, which all marks have to say, and whether as part of a group alone."""
    marks = [row.get(name) for what in ("published", "status") for name in columns.by_field[what]]
    known = [mark for cell in marks if (mark := cells.shown(cell)) is not None]
    return all(known) if known else None, any(cells.text(cell).lower() == cells.ONLY_IN_A_GROUP for cell in marks)


def _fill(product: Product, row: Mapping[str, Any], columns: Columns) -> None:
    """Reads a row's fields and options; whatever is left is an attribute, second columns of a field too."""
    for name in columns.others:
        _keep(product, name, row.get(name))
    for what in (*ONE, *VARIED):
        read = cells.path if what == "category" else cells.prose
        for name in columns.by_field[what]:
            said = read(row.get(name))
            sold_as = what == "category" and set(re.findall(r"\w+", said.lower())) <= SOLD_AS
            if said and not sold_as and what not in product.fields:
                product.fields[what] = said
            elif said != product.fields.get(what):
                _keep(product, name, row.get(name))
    for what in ("price", "sale_price"):
        for name in columns.by_field[what]:
            found = price(row.get(name))
            if found is None or what in product.fields:
                if found is None or found[0] != product.fields[what]:
                    _keep(product, name, row.get(name))
                continue
            product.fields[what] = found[0]
            if found[1]:
                product.fields.setdefault("currency", found[1])
    titles = [name for name in columns.by_field["title"] if cells.prose(row.get(name)) not in ("", product.title)]
    kinds = [
        name for name in columns.by_field["row_kind"] if cells.text(row.get(name)).lower() not in PART | {"product"}
    ]
    for name in (*titles, *kinds, *columns.by_field["variations"]):
        _keep(product, name, row.get(name))
    bought = _first(row, columns, "availability", cells.availability)
    if bought := bought or _first(row, columns, "stock", cells.availability_of_count):
        product.fields["availability"] = bought
    for name, value in columns.options:
        option, chosen = cells.text(row.get(name)), cells.text(row.get(value))
        if option:
            product.option_names[value] = option
        if chosen and chosen != "Default Title":
            product.option_values[value] = chosen.split(", ")


def _keep(product: Product, name: str, cell: Any) -> None:
    """Keeps an attribute: text as it is read, numbers and marks as they are, lists and objects whole."""
    if isinstance(cell, str):
        cell = cells.prose(cell)
    if cell not in ("", None, [], {}) and cell == cell:
        product.attributes[name] = cell
