"""A product as a table has it, put together from its rows: its own, those of variants, and those of further images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

DISTINCT = 20  # values of an attribute that are kept of a product's variants
VARIED = ("color", "size", "material")
OPTIONS = {
    "color": "color", "colour": "color", "farbe": "color", "couleur": "color", "size": "size", "größe": "size",
    "taille": "size", "material": "material",
}  # fmt: skip

Named = Literal["own", "id", "any"]


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
        only_in_group: whether customers see it as part of another product alone.
        where: the first of its rows.
        named: what `id` is: the row's own ID, the ID of the product it is a variant of, or any name of that product.
        aliases: other names of the product, which its variants may call it by.
        members: IDs of other rows that are its variants.
        positions: where an image stands among the product's, where that is said.
        option_names: names of options by the column of their values; a product may say them in one row alone.
        option_values: values by the same columns.
    """

    id: str
    title: str
    images: list[str]
    fields: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    shown: bool | None = None
    only_in_group: bool = False
    where: str = ""
    named: Named = "own"
    aliases: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    positions: dict[str, float] = field(default_factory=dict)
    option_names: dict[str, str] = field(default_factory=dict)
    option_values: dict[str, list[str]] = field(default_factory=dict)

    def settled(self) -> "Product":
        """Gives options their names, images their order, and takes a sale that is none away."""
        for column, values in self.option_values.items():
            name = self.option_names.get(column, column)
            known, said = OPTIONS.get(name.lower()), ", ".join(dict.fromkeys(values))
            (self.fields if known else self.attributes)[known or name] = said
        last = len(self.positions) + max(self.positions.values(), default=0)
        self.images.sort(key=lambda url: self.positions.get(url, last))
        sale, price = self.fields.get("sale_price"), self.fields.get("price")
        if sale is not None and (sale <= 0 or (price is not None and sale >= price)):
            del self.fields["sale_price"]
        return self

    def add(self, other: "Product") -> None:
        """Takes in another row of the same product; what the product's own row says comes before a variant's."""
        first, second = (other, self) if self.named != "own" and other.named == "own" else (self, other)
        self.title = first.title or second.title
        self.images = list(dict.fromkeys([*first.images, *second.images]))
        self.positions = {**second.positions, **first.positions}
        self.shown = second.shown if first.shown is None else first.shown
        self.only_in_group = first.only_in_group
        self.fields = _fields(first.fields, second.fields)
        self.attributes = _joined(first.attributes, second.attributes)
        self.option_names = {**second.option_names, **first.option_names}
        for column, values in other.option_values.items():
            self.option_values.setdefault(column, []).extend(values)
        self.named = first.named


def _fields(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**theirs, **{name: value for name, value in mine.items() if value not in ("", None)}}
    for name in VARIED:
        said = dict.fromkeys(value for of in (mine, theirs) for value in str(of.get(name) or "").split(", ") if value)
        merged |= {name: ", ".join(said)} if said else {}
    for name in ("price", "sale_price"):  # 0 stands for a variant that has no price of its own
        known = [of[name] for of in (mine, theirs) if of.get(name) is not None]
        merged |= {name: min([amount for amount in known if amount > 0] or known)} if known else {}
    if "in stock" in (mine.get("availability"), theirs.get("availability")):
        merged["availability"] = "in stock"
    return merged


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attributes of both; texts that differ stand side by side."""
    found = dict(first)
    for name, value in second.items():
        known = found.get(name)
        if isinstance(known, str) and isinstance(value, str):
            parts = dict.fromkeys([*known.split(" | "), *value.split(" | ")])
            found[name] = " | ".join([*parts][:DISTINCT])
        elif known is None:
            found[name] = value
    return found
