"""item2meta, the catalogue's metadata file -> its records: the one reader, of which each stage takes what it needs.

The published forms and their relatives are read, whatever the file's name (docs/data.md has examples):

- an object of items by their IDs, `{ID: {"title", "images", ...}}`, as `item2meta_train.json`;
- a list, or JSON lines, of items that name their ID in one of `ID_FIELDS`;
- a list, or JSON lines, of images, `{"title", "image_name", "image", ...}`, as `item2meta_valid.jsonl`.

Descriptions (`descriptions.py`), items (`items.py`) and image URLs (`crawl/sources.py`) are views of these records.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lavic.errors import UserError
from lavic.files.json_entries import Entry, read_entries
from lavic.files.rejected import Rejected

ID_FIELDS = ("asin", "parent_asin", "item_id", "product_id", "id")
NEEDED = (
    "needed is an object of items by their IDs, or a list or JSON lines of objects with an ID "
    f"({', '.join(ID_FIELDS)}) or an image_name"
)


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """A product. `meta` is what the file holds for it, an object unless the file is malformed there."""

    where: str
    item: str
    meta: Any


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a product, whose ID is the image's name up to its last `_`."""

    where: str
    item: str
    image: str
    meta: dict[str, Any]


Record = ItemRecord | ImageRecord


def read_item2meta(path: Path, whole: bool = False) -> Iterator[Record | Rejected]:
    """The records of a metadata file in its order, and what is not one; in constant memory.

    An item may come twice: the first counts, and it is for who keeps them to report the second.

    Args:
        path: the file.
        whole: whether a line that is no JSON is an error, instead of one that is passed on.

    Raises:
        UserError: the file cannot be read, or not from some line on, or nothing in it is an item or an image, or
            `whole` and a line cannot be read.
    """
    found = False
    first: Entry | Rejected | None = None
    for entry in read_entries(path, is_record=_is_record):
        first = first or entry
        if isinstance(entry, Rejected):
            if whole:
                raise UserError(f"{path} cannot be read in {entry.where} ({entry.reason}); mend or remove that line.")
            yield entry
            continue
        yield from (Rejected(f"{entry.where}: {key}", "duplicate key") for key in entry.repeated)
        record = _record(entry)
        found = found or (not isinstance(record, Rejected) and isinstance(record.meta, dict | None))
        yield record
    if not found:
        raise UserError(f"No item was found in {path}, which {_shape(first)}; {NEEDED}.")


def item_of_image(image: str) -> str:
    """`B08LYS9WYD_4.jpg` -> `B08LYS9WYD`: published image names are the item's ID, `_`, and a number."""
    return PurePosixPath(image).stem.rpartition("_")[0] or PurePosixPath(image).stem


def kind_of(value: Any) -> str:
    """What a JSON value is, in the words of a message."""
    if value is None:
        return "missing or null"
    if isinstance(value, str):
        return "text" if value.strip() else "empty"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def _record(entry: Entry) -> Record | Rejected:
    value = entry.value
    if entry.key is not None:
        return ItemRecord(entry.where, entry.key, value)
    if not isinstance(value, dict):
        return Rejected(entry.where, "not an object")
    image = value.get("image_name")
    if isinstance(image, str) and image.strip():
        return ImageRecord(entry.where, item_of_image(image), image, value)
    if item := _id(value):
        return ItemRecord(entry.where, item, value)
    meant_as_image = {"image", "image_name"} & value.keys()
    return Rejected(entry.where, "no image name" if meant_as_image else "no ID and no image name")


def _is_record(value: dict[str, Any]) -> bool:
    return bool(_id(value)) or isinstance(value.get("image_name"), str)


def _id(value: dict[str, Any]) -> str:
    for field in ID_FIELDS:
        found = value.get(field)
        if isinstance(found, str) and found.strip():
            return found.strip()
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
    return ""


def _shape(first: Entry | Rejected | None) -> str:
    """What was found instead of items, in words that follow "which"."""
    if first is None:
        return "is empty"
    if isinstance(first, Rejected):
        return f"has no whole object a line ({first.where}: {first.reason})"
    kind = kind_of(first.value)
    if first.key is not None:
        return f"is an object whose values are not objects ({first.key!r} is {kind})"
    form = "a list" if first.where.startswith("entry") else "JSON lines"
    fields = ", ".join(first.value) if isinstance(first.value, dict) else ""
    return f"holds {form} of entries without an ID ({first.where} is {kind}{f' of {fields[:80]}' if fields else ''})"
