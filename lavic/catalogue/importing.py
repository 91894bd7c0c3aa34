"""A product table -> item2meta files, as `python -m crawl` and every stage read them.

Columns are given, or found by the names that shop systems and Amazon Reviews 2023 use (`product_columns.py`); an item
may have several images and variants, in one row or in several (`product_groups.py`). Every `1 / valid_share`-th item
with an image, by a hash of its ID, goes to validation.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from lavic.catalogue.product_rows import ProductRows
from lavic.catalogue.products import Product
from lavic.catalogue.tables import read_rows
from lavic.errors import UserError
from lavic.files import writing
from lavic.files.rejected import Rejected
from lavic.ranges import check_ranges

TRAIN, VALID, LEFT_OUT = "item2meta_train.json", "item2meta_valid.jsonl", "left_out.jsonl"


@dataclass
class Imported:
    """What was written, and what was left out, by reason."""

    items: int = 0
    valid_items: int = 0
    images: int = 0
    without_image: int = 0
    without_title: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    columns: list[str] = field(default_factory=list)  # what each became, a line each


def import_table(
    file: Path,
    out: Path,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    encoding: str | None = None,
    valid_share: float = 0.05,
    progress: Callable[[float, int], None] = lambda share, items: None,
) -> Imported:
    """Writes `item2meta_train.json`, `item2meta_valid.jsonl` and `left_out.jsonl` into `out`, whole or not at all.

    Memory holds a thousand rows and eight bytes of each ID, whatever the table's length. It gives the same files again,
    so what was killed is simply run again.

    Args:
        file: CSV, TSV, Parquet, JSON, JSON lines or an XML feed, gzip or not.
        out: a folder.
        columns: names of the columns `id`, `title`, `description` and `images` where they are not to be found.
        encoding: of a CSV, TSV or XML feed; found when None.
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
        reader = ProductRows(columns or {}, file, leave_out)
        for product in reader.products(read_rows(file, encoding, read), out / f".products.{os.getpid()}.partial"):
            where = product.where
            if product.shown is False or product.only_in_group:
                leave_out(f"{where}: {product.id}", "not shown to customers (draft, archived, hidden or unpublished)")
                continue
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
        done.rows, done.columns = reader.rows, list(reader.said())
        if not done.items:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in done.left_out.items()) or "it has no rows"
            raise UserError(f"No product could be read from {file} ({reasons}).")
    return done


def _known(product: Product) -> dict[str, Any]:
    """All that is known of a product beside its title and images."""
    return {**product.fields, **({"attributes": product.attributes} if product.attributes else {})}


def _item(product: Product) -> str:
    images = [{"large": url} for url in product.images]
    return json.dumps({"title": product.title, "images": images, **_known(product)}, ensure_ascii=False)


def _image_lines(product: Product) -> Iterator[dict[str, Any]]:
    for number, url in enumerate(product.images):
        name = f"{product.id}_{number}.jpg"
        yield {"title": product.title, "image_name": name, "image": url, **_known(product)}


def _sweep(out: Path) -> None:
    """Removes what killed imports left half-written."""
    for partial in out.glob(".*.partial"):
        pid = partial.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            partial.unlink(missing_ok=True)
