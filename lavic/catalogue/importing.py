"""A product table -> item2meta files, as `python -m crawl` and every stage read them.

Columns are given, or found by the names that shops and Amazon Reviews 2023 use. An item may have several images, in one
cell (a list, or URLs with something between them), in several columns (`image_1`, `image_2`), or in rows that follow
each other with the same ID. Every `1 / valid_share`-th item with an image, by a hash of its ID, goes to validation.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from lavic.catalogue.descriptions import escapes_folder
from lavic.catalogue.tables import read_rows
from lavic.errors import UserError
from lavic.files import writing
from lavic.files.rejected import Rejected
from lavic.ranges import check_ranges

NAMES = {  # what a column may be called, the likeliest first; compared without case, spaces, hyphens and underscores
    "id": (
        "parentasin",
        "asin",
        "id",
        "sku",
        "itemid",
        "productid",
        "variantsku",
        "handle",
        "articlenumber",
        "gtin",
        "ean",
    ),
    "title": ("title", "name", "productname", "producttitle", "itemname", "displayname"),
    "description": ("description", "bodyhtml", "body", "productdescription", "longdescription", "text"),
}
IMAGES = re.compile(r"(?:additional)?(?:product)?(?:main)?(?:image|img|picture|photo)s?(?:src|link|url|urls|links)?\d*")
SIZES = ("large", "hi_res", "url", "src", "link", "thumb")  # of Amazon's sizes, the one that LaViC crawls comes first
TRAIN, VALID, LEFT_OUT = "item2meta_train.json", "item2meta_valid.jsonl", "left_out.jsonl"


@dataclass
class Product:
    """An item as the table has it."""

    id: str
    title: str
    images: list[str]
    description: str


@dataclass
class Imported:
    """What was written, and what was left out, by reason."""

    items: int = 0
    valid_items: int = 0
    images: int = 0
    without_image: int = 0
    without_title: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def import_table(
    file: Path,
    out: Path,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    encoding: str | None = None,
    valid_share: float = 0.05,
    progress: Callable[[float, int], None] = lambda share, items: None,
) -> Imported:
    """Writes `item2meta_train.json`, `item2meta_valid.jsonl` and `left_out.jsonl` into `out`, whole or not at all.

    Memory holds a row and eight bytes of each ID, whatever the table's length. It gives the same files again, so what
    was killed is simply run again.

    Args:
        file: CSV, TSV, Parquet, JSON or JSON lines, gzip or not.
        out: a folder.
        columns: names of the columns `id`, `title`, `description` and `images` where they are not to be found.
        encoding: of a CSV or TSV; found when None.
        valid_share: share of the items that stage 1 validates with.
        progress: is told the share of the file that was read and the items so far.

    Raises:
        UserError: the file cannot be read, has no column for IDs or titles, or no row that can be used.
    """
    check_ranges(valid_share=valid_share)
    out.mkdir(parents=True, exist_ok=True)
    _sweep(out)
    done = Imported()
    share = 0.0

    def read(now: float) -> None:
        nonlocal share
        share = now

    with writing(out / TRAIN) as train, writing(out / VALID) as valid, writing(out / LEFT_OUT) as left_out:

        def leave_out(where: str, reason: str) -> None:
            done.left_out[reason] += 1
            left_out.write(Rejected(where, reason).line())

        train.write("{")
        seen: set[int] = set()
        for where, product in _products(read_rows(file, encoding, read), columns or {}, file, leave_out):
            mark = int.from_bytes(hashlib.blake2b(product.id.encode(), digest_size=8).digest())
            if mark in seen:
                leave_out(where, "duplicate ID")
                continue
            seen.add(mark)
            if product.images and mark < valid_share * 2**64:
                valid.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in _image_lines(product))
                done.valid_items += 1
            else:
                comma = ",\n" if done.items > done.valid_items else "\n"
                train.write(f"{comma}{json.dumps(product.id, ensure_ascii=False)}: {_item(product)}")
            done.items += 1
            done.images += len(product.images)
            done.without_image += not product.images
            done.without_title += not product.title
            progress(share, done.items)
        train.write("\n}\n")
        if not done.items:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in done.left_out.items()) or "it has no rows"
            raise UserError(f"No product could be read from {file} ({reasons}).")
    return done


def _products(
    rows: Iterable[tuple[str, Any]],
    columns: Mapping[str, str | Sequence[str]],
    file: Path,
    leave_out: Callable[[str, str], None],
) -> Iterator[tuple[str, Product]]:
    """One product for each run of rows with the same ID."""
    finder = _Columns(columns, file)
    open_product: tuple[str, Product] | None = None
    for where, row in rows:
        if isinstance(row, str):
            leave_out(where, row)
            continue
        product = finder.product(row, where, leave_out)
        if product is None:
            continue
        if open_product and open_product[1].id == product.id:
            kept = open_product[1]
            kept.images += [image for image in product.images if image not in kept.images]
            kept.title, kept.description = kept.title or product.title, kept.description or product.description
            continue
        if open_product:
            yield open_product
        open_product = where, product
    if open_product:
        yield open_product


class _Columns:
    """Finds a row's cells; rows of JSON may have other fields each, so every row is looked at by its own names."""

    def __init__(self, given: Mapping[str, str | Sequence[str]], file: Path) -> None:
        self._given, self._file = given, file
        self._known: dict[tuple[str, ...], dict[str, list[str]]] = {}

    def product(self, row: Mapping[str, Any], where: str, leave_out: Callable[[str, str], None]) -> Product | None:
        names = tuple(row)
        if names not in self._known:
            first = not self._known
            self._known = {} if len(self._known) > 1000 else self._known
            self._known[names] = self._columns_of(names, required=first)
        found = self._known[names]
        item = next((text for name in found["id"] if (text := _text(row[name]))), "")
        if not item:
            leave_out(where, "no ID")
            return None
        if "/" in item or "\\" in item or escapes_folder(item) or len(item.encode()) > 200:
            leave_out(where, "an ID that cannot be part of a file name")
            return None
        images: list[str] = []
        for name in found["images"]:
            for url in _urls(row[name]):
                if not url.startswith(("http://", "https://")):
                    leave_out(f"{where}: {url[:200]}", "an image that is not a URL")
                elif url not in images:
                    images.append(url)
        return Product(
            item,
            next((text for name in found["title"] if (text := _text(row[name]))), ""),
            images,
            next((text for name in found["description"] if (text := _text(row[name]))), ""),
        )

    def _columns_of(self, names: Sequence[str], required: bool) -> dict[str, list[str]]:
        plain = {name: re.sub(r"[\W_]+", "", name.lower()) for name in names}
        found = {
            what: [name for known in possible for name in names if plain[name] == known]
            for what, possible in NAMES.items()
        }
        found["images"] = [name for name in names if IMAGES.fullmatch(plain[name])]
        for what, given in self._given.items():
            wanted = [given] if isinstance(given, str) else list(given)
            if required and (missing := [name for name in wanted if name not in names]):
                raise UserError(
                    f"{self._file} has no column '{missing[0]}' for the {what}; its columns are "
                    f"{', '.join(names)[:300]}."
                )
            found[what] = [name for name in wanted if name in names]
        for what in ("id", "title"):
            if required and not found[what]:
                raise UserError(
                    f"No column of {self._file} looks like the {what} ({', '.join(names)[:300]}); name it with "
                    f"--{what} COLUMN."
                )
        return found


def _urls(cell: Any) -> list[str]:
    """The URLs of a cell: a text, a list of texts or of {size: URL}, or Amazon's {size: [URL, ...]}."""
    if isinstance(cell, str):
        text = cell.strip()
        if text[:1] in ("[", "{"):
            with suppress(ValueError):
                return _urls(json.loads(text))
        parts = re.split(r"(?:\s*[|;,]\s*|\s+)(?=(?:https?:)?//)", text)
        urls = [part.strip(" |;,\n\t") for part in parts]
        return [f"https:{url}" if url.startswith("//") else url for url in urls if url]
    if isinstance(cell, list):
        return [url for entry in cell for url in _urls(entry)]
    if isinstance(cell, dict):
        sizes = [cell[size] for size in SIZES if cell.get(size)]
        if any(isinstance(size, list) for size in sizes):
            longest = max(len(size) for size in sizes if isinstance(size, list))
            entries = ({k: v[i] for k, v in cell.items() if isinstance(v, list) and i < len(v)} for i in range(longest))
            return [url for entry in entries for url in _urls(entry)]
        return _urls(sizes[0]) if sizes else []
    return []


def _text(cell: Any) -> str:
    """A cell as one line of text; a list's texts joined."""
    if isinstance(cell, list):
        return " ".join(filter(None, map(_text, cell)))
    if isinstance(cell, bool) or cell is None:
        return ""
    if isinstance(cell, float):
        return "" if cell != cell else str(int(cell)) if cell.is_integer() else str(cell)
    return " ".join(str(cell).split()) if isinstance(cell, str | int) else ""


def _item(product: Product) -> str:
    meta: dict[str, Any] = {"title": product.title, "images": [{"large": url} for url in product.images]}
    if product.description:
        meta["description"] = product.description
    return json.dumps(meta, ensure_ascii=False)


def _image_lines(product: Product) -> Iterator[dict[str, str]]:
    for number, url in enumerate(product.images):
        yield {"title": product.title, "image_name": f"{product.id}_{number}.jpg", "image": url}


def _sweep(out: Path) -> None:
    """Removes what killed imports left half-written."""
    for partial in out.glob(".*.partial"):
        pid = partial.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            partial.unlink(missing_ok=True)
