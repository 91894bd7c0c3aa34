"""`python -m lavic import FILE --out data/NAME`: a product table becomes the files that every stage reads."""

import logging
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lavic.catalogue.importing import LEFT_OUT, TRAIN, VALID, Imported, import_table
from lavic.commands.options import OptionParser
from lavic.errors import UserError
from lavic.ranges import check_ranges

log = logging.getLogger(__name__)


def import_file(
    file: Path,
    out: Path,
    id: str | None = None,
    title: str | None = None,
    images: list[str] | None = None,
    description: str | None = None,
    encoding: str | None = None,
    valid_share: float = 0.05,
) -> Imported:
    """Reads a product table and writes item2meta_train.json, item2meta_valid.jsonl and left_out.jsonl.

    Args:
        file: CSV, TSV, Parquet, JSON, JSON lines or an XML feed, gzip or not: a shop system's export, Google Merchant's
            feed, or Amazon Reviews 2023 metadata as published.
        out: the folder that receives the files.
        id: the column of the IDs; found by its name when not given.
        title: the column of the titles; found when not given.
        images: the columns of the image URLs; found when not given.
        description: the column of the shop's own text; found when not given.
        encoding: of a CSV, TSV or XML feed, such as cp1252; found when not given.
        valid_share: share of the items, from 0 to 1, that stage 1 validates with.
    """
    if not file.is_file():
        raise UserError(f"The table {file} does not exist; give the path of a CSV, TSV, Parquet, JSON or XML file.")
    check_ranges(valid_share=valid_share)
    given = {"id": id, "title": title, "images": images, "description": description}
    columns = {what: name for what, name in given.items() if name}
    bar = Progress(
        TextColumn("importing"), BarColumn(), TextColumn("{task.fields[items]:,} items"), TimeRemainingColumn(),
        console=Console(stderr=True), refresh_per_second=4,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None, items=0)

        def show(share: float, items: int) -> None:
            if items % 500 == 0:
                bar.update(task, total=1.0 if share else None, completed=share, items=items)

        done = import_table(file, out, columns, encoding, valid_share, show)
        bar.update(task, total=1.0, completed=1.0, items=done.items)
    return done


def main(argv: list[str]) -> int:
    """The command line; see `import_file` for the options."""
    parser = OptionParser(prog="python -m lavic import", description="Reads a product table.")
    parser.add_argument("file", type=Path, help="CSV, TSV, Parquet, JSON, JSON lines or an XML feed, gzip or not.")
    parser.add_function_arguments(import_file, fail_untyped=False, skip={"file"})
    options = parser.parse(argv)
    done = import_file(**options.as_dict())
    for line in done.columns:
        print(line)
    print(f"{done.rows} rows: {done.items} items, {done.left_out.total()} times something left out")
    print(f"{done.items - done.valid_items} items -> {options.out / TRAIN}")
    print(f"{done.valid_items} items -> {options.out / VALID}")
    print(f"{done.images} images of them; {done.without_image} items have none, {done.without_title} no title")
    for reason, count in done.left_out.most_common():
        print(f"left out: {count} x {reason}")
    if done.left_out:
        print(f"what was left out is listed in {options.out / LEFT_OUT}")
    return 0
