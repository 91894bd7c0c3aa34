"""The catalogue as stage 2 sees it: each item's ID, title and image.

Unlike stage 1's described images (`lavic/catalogue/descriptions.py`), an item counts here even without a description:
it can still be a candidate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavic.catalogue.item2meta import item_of_image, read_item2meta
from lavic.errors import UserError
from lavic.files.rejected import Rejected

NO_TITLE = "No Title"  # what the published prompt says of an item without one
_IMAGES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True, slots=True)
class Item:
    """A product. `image` is the file of its first image, None when there is none."""

    id: str
    title: str
    image: Path | None


def read_items(metadata: Sequence[Path], images: Sequence[Path] = ()) -> dict[str, Item]:
    """All items of the metadata files (`item2meta`), in order; an ID's first title counts.

    `images` are folders of `ID_i.jpg` files; an item's image is the one with the lowest `i` in the first
    folder that has one.

    Raises:
        UserError: a file or folder is missing, or a file is no item2meta (names the line).
    """
    first_images = _first_images(images)
    items: dict[str, Item] = {}
    for path in metadata:
        for item, title in _titles(path):
            if item not in items:
                items[item] = Item(item, title or NO_TITLE, first_images.get(item))
    if not items:
        named = ", ".join(map(str, metadata))
        raise UserError(f"No item was found in {named or 'no file'}; give item2meta files.")
    return items


def _titles(path: Path) -> Iterator[tuple[str, str]]:
    for record in read_item2meta(path, whole=True):
        if not isinstance(record, Rejected):
            yield record.item, _text(record.meta.get("title")) if isinstance(record.meta, dict) else ""


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _first_images(folders: Sequence[Path]) -> dict[str, Path]:
    first: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"The images folder {folder} does not exist; fill it with `python -m crawl`.")
        here: dict[str, tuple[int, Path]] = {}
        for path in folder.iterdir():
            number = path.stem.rpartition("_")[2]
            if path.suffix.lower() in _IMAGES:
                item = item_of_image(path.name)
                place = (int(number) if number.isdecimal() else 0, path)
                here[item] = min(here.get(item, place), place)
        for item, (_, path) in here.items():
            first.setdefault(item, path)
    return first
