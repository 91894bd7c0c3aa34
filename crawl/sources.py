"""Metadata files as streams of wanted images; what is malformed is passed on, never raised.

The two layouts are LaViC's own (see docs/crawling.md): a `.json` object of items, whose `images[i].large`
becomes `ASIN_i.jpg`, and a `.jsonl` with one `image` and `image_name` a line.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ijson  # type: ignore[import-untyped]

LONGEST_LINE = 16 * 2**20  # bytes; a file without line ends must not be read into memory as one line


@dataclass(frozen=True, slots=True)
class Source:
    """One metadata file and the folder that its images go to."""

    file: Path
    out: Path


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image that the metadata names: its URL, its file name, and where in the source it stands."""

    url: str
    name: str
    place: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing in a source that names no image: where it stands and what is wrong with it."""

    place: str
    reason: str
    fatal: bool = False  # the rest of the file could not be read


def read_source(file: Path, first_image_only: bool = False) -> Iterator[Wanted | Problem]:
    """Stream `file`, in constant memory: `.jsonl` by lines, anything else as one JSON object of items.

    Raises OSError if the file cannot be read.
    """
    if file.suffix.lower() in {".jsonl", ".ndjson"}:
        yield from _read_lines(file)
    else:
        yield from _read_items(file, first_image_only)


def _read_items(file: Path, first_image_only: bool) -> Iterator[Wanted | Problem]:
    with file.open("rb") as stream:
        try:
            for asin, item in ijson.kvitems(stream, "", use_float=True):
                yield from _item_images(asin, item, first_image_only)
        except ijson.JSONError as error:
            sentence = " ".join(str(error).split())[:200]
            yield Problem(f"near byte {stream.tell()}", f"not JSON from here on: {sentence}", fatal=True)


def _item_images(asin: str, item: Any, first_image_only: bool) -> Iterator[Wanted | Problem]:
    if not isinstance(item, dict):
        yield Problem(asin, f"the item is {_kind(item)}, not an object")
        return
    images = item.get("images")
    if not isinstance(images, list):
        yield Problem(asin, f"images is {_kind(images)}, not a list")
        return
    for index, image in enumerate(images):
        place = f"{asin} images[{index}]"
        url = image.get("large") if isinstance(image, dict) else None
        if isinstance(url, str) and url.strip():
            yield Wanted(url.strip(), f"{asin}_{index}.jpg", place)
            if first_image_only:
                return
        elif isinstance(image, dict):
            yield Problem(place, f"large is {_kind(url)}, not a URL")
        else:
            yield Problem(place, f"the image is {_kind(image)}, not an object")


def _read_lines(file: Path) -> Iterator[Wanted | Problem]:
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE):
            number += 1
            place = f"line {number}"
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                yield Problem(place, f"the line is longer than {LONGEST_LINE} bytes", fatal=True)
                return
            if line.strip():
                yield _line_image(place, line)


def _line_image(place: str, line: bytes) -> Wanted | Problem:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Problem(place, f"not JSON: {error}")
    if not isinstance(record, dict):
        return Problem(place, f"the line is {_kind(record)}, not an object")
    url, name = record.get("image"), record.get("image_name")
    if not (isinstance(url, str) and url.strip()):
        return Problem(place, f"image is {_kind(url)}, not a URL")
    if not (isinstance(name, str) and name):
        return Problem(place, f"image_name is {_kind(name)}, not a file name")
    return Wanted(url.strip(), name, place)


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    if isinstance(value, str):
        return "empty" if not value.strip() else "text"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
