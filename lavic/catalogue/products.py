"""Rows of a product table -> products: variants and further images of one product brought together.

Where a file has columns that say which rows belong together, they may stand anywhere in it: products wait in a database
beside the output until the last row is read, so that memory stays flat.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lavic.catalogue import product_cells as cells
from lavic.catalogue.descriptions import escapes_folder
from lavic.catalogue.product_columns import Columns, find_columns, plain

DISTINCT = 20  # values of an attribute that are kept of a product's variants
OPTIONS = {"color": "color", "colour": "color", "farbe": "color", "size": "size", "größe": "size"}
OPTIONS |= {"material": "material"}
VARIED = ("color", "size", "material")
ONE = ("description", "brand", "category", "link", "currency")
# words for how a product is sold, which shops write where others say what it is
KINDS = {"simple", "variable", "variation", "grouped", "external", "configurable", "virtual", "bundle", "downloadable"}

LeaveOut = Callable[[str, str], None]


@dataclass
class Product:
    """An item as the table has it.

    Attributes:
        id: its ID; of variants, that of the product.
        title: its title.
        images: URLs.
        fields: description, price, currency, sale_price, availability, brand, category, color, size, material, link.
        attributes: all other cells, by their columns.
        shown: whether customers see it; None where the table does not say.
        where: the first of its rows.
        is_variant: whether what is known comes from variants alone.
    """

    id: str
    title: str
    images: list[str]
    fields: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    shown: bool | None = None
    where: str = ""
    is_variant: bool = False
    option_names: dict[str, str] = field(default_factory=dict)  # by the column of its values
    option_values: dict[str, list[str]] = field(default_factory=dict)

    def settled(self) -> "Product":
        """Gives options their names, which an export may say in one row of a product alone."""
        for column, values in self.option_values.items():
            name = self.option_names.get(column, column)
            known, said = OPTIONS.get(name.lower()), ", ".join(dict.fromkeys(values))
            (self.fields if known else self.attributes)[known or name] = said
        return self

    def add(self, other: "Product") -> None:
        """Takes in another row of the same product; what the product's own row says comes before a variant's."""
        if self.is_variant and not other.is_variant:
            first, second = other, self
        else:
            first, second = self, other
        self.title = first.title or second.title
        self.images = list(dict.fromkeys([*first.images, *second.images]))
        self.shown = second.shown if first.shown is None else first.shown
        mine, theirs = first.fields, second.fields
        merged = {**theirs, **{name: value for name, value in mine.items() if value not in ("", None)}}
        for name in VARIED:
            said = dict.fromkeys(
                value for of in (mine, theirs) for value in str(of.get(name) or "").split(", ") if value
            )
            merged |= {name: ", ".join(said)} if said else {}
        for name in ("price", "sale_price"):
            known = [of[name] for of in (mine, theirs) if of.get(name) is not None]
            merged |= {name: min(known)} if known else {}
        if "in stock" in (mine.get("availability"), theirs.get("availability")):
            merged["availability"] = "in stock"
        self.fields = merged
        self.attributes = _joined(first.attributes, second.attributes)
        self.option_names = {**other.option_names, **self.option_names}
        for column, values in other.option_values.items():
            self.option_values.setdefault(column, []).extend(values)
        self.is_variant = first.is_variant and second.is_variant


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
        self._owners: dict[str, str] = {}  # what a variant may call its product -> the product's ID
        self.columns: Columns | None = None  # of the first row
        self.rows = 0

    def products(self, rows: Iterable[tuple[str, Any]], beside: Path) -> Iterator[Product]:
        """Yields one product for all rows that belong to it; `beside` is a file that may be made for the while."""
        found = self._read(rows)
        first = next(found, None)
        if first is None:
            return
        together = self._apart if self.columns is not None and self.columns.groups else self._in_a_row
        yield from together(first, found, beside)

    def _in_a_row(self, first: Product, found: Iterator[Product], beside: Path) -> Iterator[Product]:
        for product in found:
            if product.id == first.id:
                first.add(product)
            else:
                yield first.settled()
                first = product
        yield first.settled()

    def _apart(self, first: Product, found: Iterator[Product], beside: Path) -> Iterator[Product]:
        beside.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(beside, isolation_level=None)) as database:
                database.execute("PRAGMA journal_mode = OFF")
                database.execute("PRAGMA synchronous = OFF")
                database.execute("CREATE TABLE product (number INTEGER PRIMARY KEY, id TEXT UNIQUE, content TEXT)")
                database.execute("BEGIN")
                for product in (part for group in ([first], found) for part in group):
                    row = database.execute("SELECT content FROM product WHERE id = ?", (product.id,)).fetchone()
                    if row is None:
                        stored = json.dumps(asdict(product))
                        database.execute("INSERT INTO product (id, content) VALUES (?, ?)", (product.id, stored))
                        continue
                    known = Product(**json.loads(row[0]))
                    known.add(product)
                    stored = json.dumps(asdict(known))
                    database.execute("UPDATE product SET content = ? WHERE id = ?", (stored, product.id))
                for (content,) in database.execute("SELECT content FROM product ORDER BY number"):
                    yield Product(**json.loads(content)).settled()
        finally:
            beside.unlink(missing_ok=True)

    def _read(self, rows: Iterable[tuple[str, Any]]) -> Iterator[Product]:
        for where, row in rows:
            self.rows += 1
            if isinstance(row, str):
                self._leave_out(where, row)
            elif (product := self._product(row, where)) is not None:
                yield product

    def _columns(self, names: tuple[str, ...]) -> Columns:
        if names not in self._known:
            first = self.columns is None
            self._known = {} if len(self._known) > 1000 else self._known
            self._known[names] = find_columns(names, self._given, self._file, required=first)
            self.columns = self.columns or self._known[names]
        return self._known[names]

    def _product(self, row: Mapping[str, Any], where: str) -> Product | None:
        columns = self._columns(tuple(row))
        by_field = columns.by_field

        def first(what: str, read: Callable[[Any], Any] = cells.text) -> Any:
            return next((value for name in by_field[what] if (value := read(row.get(name))) not in ("", None)), None)

        own = first("id") or ""
        group = (first("group") or "").removeprefix("id:")
        kind = (first("category") or "").lower()
        item = self._owners.get(group, group) or own
        if not group and own and columns.groups:
            for alias in (own, *(cells.text(row.get(name)) for name in row if plain(name) in ("sku", "id"))):
                self._owners.setdefault(alias, own)
        if not item:
            self._leave_out(where, "no ID")
            return None
        if "/" in item or "\\" in item or escapes_folder(item) or len(item.encode()) > 200:
            self._leave_out(where, "an ID that cannot be part of a file name")
            return None
        product = Product(item, first("title", cells.prose) or "", self._images(row, columns, where), where=where)
        product.is_variant = bool(group) and group != own
        product.shown = _all_shown(first("published", cells.shown), first("status", cells.shown))
        product.fields = {what: value for what in ONE if (value := first(what, cells.prose))}
        if set(re.split(r"\W+", kind)) & KINDS:
            said = [cells.prose(row.get(name)) for name in by_field["category"]]
            product.fields["category"] = next((other for other in said if other and other.lower() != kind), "")
        for what in ("price", "sale_price"):
            if (found := first(what, cells.price)) is not None:
                product.fields[what] = found[0]
                if found[1]:
                    product.fields.setdefault("currency", found[1])
        bought = _first_known(first("availability", lambda c: cells.in_stock(c, False)), self._counted(first))
        if bought is not None:
            product.fields["availability"] = "in stock" if bought else "out of stock"
        for what in VARIED:
            if value := first(what):
                product.fields[what] = value
        for name, value in columns.options:
            option, chosen = cells.text(row.get(name)), cells.text(row.get(value))
            if option:
                product.option_names[value] = option
            if chosen and chosen != "Default Title":
                product.option_values[value] = chosen.split(", ")
        product.attributes |= {
            name: kept for name in columns.others if (kept := _kept(row.get(name))) not in ("", None)
        }
        return product

    def _counted(self, first: Callable[..., Any]) -> bool | None:
        found: bool | None = first("stock", lambda cell: cells.in_stock(cell, True))
        return found

    def _images(self, row: Mapping[str, Any], columns: Columns, where: str) -> list[str]:
        images: list[str] = []
        for name in columns.by_field["images"]:
            for url in cells.urls(row.get(name)):
                if not url.startswith(("http://", "https://")):
                    self._leave_out(f"{where}: {url[:200]}", "an image that is not a URL")
                elif url not in images:
                    images.append(url)
        return images


def _first_known(*values: bool | None) -> bool | None:
    return next((value for value in values if value is not None), None)


def _all_shown(*marks: bool | None) -> bool | None:
    known = [mark for mark in marks if mark is not None]
    return all(known) if known else None


def _kept(cell: Any) -> Any:
    """An attribute's value: text as it is read, numbers and marks as they are, lists and objects whole."""
    if isinstance(cell, str):
        return cells.prose(cell)
    if isinstance(cell, float) and cell != cell:
        return None
    return cell if cell not in ([], {}) else None


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of both; texts that differ stand side by side."""
    found = dict(first)
    for name, value in second.items():
        known = found.get(name)
        if isinstance(known, str) and isinstance(value, str):
            parts = dict.fromkeys([*known.split(" | "), *value.split(" | ")])
            found[name] = " | ".join([*parts][:DISTINCT])
        elif known is None:
            found[name] = value
    return found
