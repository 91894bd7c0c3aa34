"""Products of single rows -> whole products: rows that belong together are brought together.

Where a file has columns that say which rows belong together, they may stand anywhere in it: products wait in a database
beside the output until the last row is read, so that memory stays flat. A variant may stand before its product, and
call it by its ID or by another name, such as its SKU.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from lavic.catalogue.products import Product

TABLES = (
    "CREATE TABLE product (number INTEGER PRIMARY KEY, id TEXT, named TEXT, content TEXT, UNIQUE (id, named))",
    "CREATE TABLE alias (name TEXT PRIMARY KEY, id TEXT)",
    "CREATE TABLE member (name TEXT PRIMARY KEY, id TEXT)",
)
PARTS = """
    SELECT product.number, product.content, COALESCE(member.id, alias.id, product.id) FROM product
    LEFT JOIN member ON product.named = 'own' AND member.name = product.id AND member.id != product.id
    LEFT JOIN alias ON product.named = 'any' AND alias.name = product.id
    WHERE product.number > ? AND (product.named != 'own' OR member.id IS NOT NULL) ORDER BY product.number LIMIT 1
"""


def in_a_row(products: Iterable[Product]) -> Iterator[Product]:
    """Yields one product for each run of rows with the same ID."""
    whole: Product | None = None
    for product in products:
        if whole is not None and product.id == whole.id:
            whole.add(product)
            continue
        if whole is not None:
            yield whole.settled()
        whole = product
    if whole is not None:
        yield whole.settled()


def wherever(products: Iterable[Product], beside: Path) -> Iterator[Product]:
    """Yields one product for all rows that belong to it; `beside` is a file that is made for the while."""
    beside.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(beside, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            for table in TABLES:
                database.execute(table)
            database.execute("BEGIN")
            for product in products:
                _put(database, product)
                for table, names in (("alias", product.aliases), ("member", product.members)):
                    values = ((name, product.id) for name in names)
                    database.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", values)
            _bring_together(database)
            for (content,) in database.execute("SELECT content FROM product ORDER BY number"):
                yield Product(**json.loads(content)).settled()
    finally:
        beside.unlink(missing_ok=True)


def _put(database: sqlite3.Connection, product: Product) -> None:
    key = (product.id, product.named)
    row = database.execute("SELECT content FROM product WHERE id = ? AND named = ?", key).fetchone()
    if row is None:
        database.execute("INSERT INTO product (id, named, content) VALUES (?, ?, ?)", (*key, _content(product)))
        return
    known = Product(**json.loads(row[0]))
    known.add(product)
    database.execute("UPDATE product SET content = ? WHERE id = ? AND named = ?", (_content(known), *key))


def _bring_together(database: sqlite3.Connection) -> None:
    """Moves variants to their products; those whose product has no row of its own are one under its name."""
    number = 0
    while part := database.execute(PARTS, (number,)).fetchone():
        number, content, target = part
        variant = Product(**json.loads(content))
        row = database.execute("SELECT content FROM product WHERE id = ? AND named = 'own'", (target,)).fetchone()
        if row is None:
            if variant.named != "own":
                variant.id = target
                changed = (target, _content(variant), number)
                database.execute("UPDATE product SET id = ?, named = 'own', content = ? WHERE number = ?", changed)
            continue
        if variant.shown is False:  # it stays by itself, and is left out as what it is
            continue
        database.execute("DELETE FROM product WHERE number = ?", (number,))
        whole = Product(**json.loads(row[0]))
        variant.named = "id"
        whole.add(variant)
        database.execute("UPDATE product SET content = ? WHERE id = ? AND named = 'own'", (_content(whole), target))


def _content(product: Product) -> str:
    return json.dumps(asdict(product))
