"""The catalogue as stage 2 sees it: each item's ID, title and image.

Unlike stage 1's described images (`lavic/catalogue/descriptions.py`), an item counts here even without a description:
it can still be a candidate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavic.catalogue.item2meta import ImageRecord, ItemRecord, item_of_image, read_item2meta
from lavic.catalogue.named_images import images_of, stem_of
from lavic.errors import UserError
from lavic.files.rejected import Rejected

NO_TITLE = "No Title"  # what the published prompt says of an item without one
_IMAGES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True, slots=True)
class Item:
    """A product. `image` is the file of the first image that the metadata names of it, None when there is none."""

    id: str
    title: str
    image: Path | None


def read_items(metadata: Sequence[Path], images: Sequence[Path] = ()) -> dict[str, Item]:
    """All items of the metadata files (`item2meta`), in order; an ID's first title counts.

    `images` are folders of `ID_i.jpg` files; an item's image is the one with the lowest `i` in the first folder that
    has one, of those that the metadata names (`named_images.py`). Where an item's own record says nothing of images,
    they are whatever the folders hold under its ID.

    Raises:
        UserError: a file or folder is missing, or a file is no item2meta (names the line).
    """
    folders = [_by_item(folder) for folder in images]
    titles: dict[str, str] = {}
    named: dict[str, set[str] | None] = {}  # stems of file names; None for an item that says nothing of images
    for path in metadata:
        for record in _records(path):
            meta = record.meta if isinstance(record.meta, dict) else {}
            titles.setdefault(record.item, _text(meta.get("title")) or NO_TITLE)
            said, before = images_of(record), named.get(record.item, set())
            named[record.item] = None if said is None or before is None else before | {stem_of(image) for image in said}
    if not titles:
        raise UserError(f"No item was found in {', '.join(map(str, metadata)) or 'no file'}; give item2meta files.")
    return {item: Item(item, title, _first_image(item, named[item], folders)) for item, title in titles.items()}


def _records(path: Path) -> Iterator[ItemRecord | ImageRecord]:
    for record in read_item2meta(path, whole=True):
        if not isinstance(record, Rejected):
            yield record


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _first_image(item: str, named: set[str] | None, folders: Sequence[dict[str, list[Path]]]) -> Path | None:
    for folder in folders:
        for image in folder.get(item, ()):
            if named is None or image.stem in named:
                return image
    return None


def _by_item(folder: Path) -> dict[str, list[Path]]:
    """The folder's images by the item that their names speak of, the lowest `i` first."""
    if not folder.is_dir():
        raise UserError(f"The images folder {folder} does not exist; fill it with `python -m crawl`.")
    found: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in _IMAGES:
            found.setdefault(item_of_image(path.name), []).append(path)
    for paths in found.values():
        paths.sort(key=lambda path: (_number(path), path))
    return found


def _number(path: Path) -> int:
    number = path.stem.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0
