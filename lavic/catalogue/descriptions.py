"""Metadata files -> described images: what LaViC's `item2meta` files say of their images, checked entry by entry.

Only the text is looked at here; whether the images are there and whole is checked by
`lavic/tasks/distillation/table.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavic.catalogue.item2meta import ImageRecord, ItemRecord, read_item2meta
from lavic.catalogue.named_images import DESCRIPTION, DESCRIPTIONS, images_of, stem_of
from lavic.catalogue.named_images import escapes_folder as escapes_folder  # for those who check a file name
from lavic.files.rejected import Rejected

WITHDRAWN = "image no longer named in images"


@dataclass(frozen=True, slots=True)
class DescribedImage:
    """One image of an item, and the text that the published LLaVA wrote about it."""

    item: str
    title: str
    image: str  # file name inside the images folder
    description: str


def read_described_images(path: Path, untitled: bool = False) -> Iterator[DescribedImage | Rejected]:
    """All described images of a metadata file in the file's order, and the entries that cannot be used.

    Args:
        path: the file.
        untitled: whether an item without a title can be used, as what is searched can; a prompt needs one.

    Raises:
        UserError: the file is missing, is no item2meta, or is not valid JSON (names the line).
    """
    items: set[str] = set()
    images: set[str] = set()
    for record in read_item2meta(path, whole=True):
        if isinstance(record, Rejected):
            yield record
        elif isinstance(record, ItemRecord) and record.item in items:
            yield Rejected(record.item, "duplicate key")
        else:
            if isinstance(record, ItemRecord):
                items.add(record.item)
            for entry in (
                _of_item(record, untitled) if isinstance(record, ItemRecord) else [_of_image(record, untitled)]
            ):
                if isinstance(entry, DescribedImage) and entry.image in images:
                    entry = Rejected(entry.image, "duplicate image")
                elif isinstance(entry, DescribedImage):
                    images.add(entry.image)
                yield entry


def _of_item(record: ItemRecord, untitled: bool) -> Iterator[DescribedImage | Rejected]:
    meta = record.meta
    if not isinstance(meta, dict):
        yield Rejected(record.item, "not an object")
        return
    descriptions = meta.get(DESCRIPTIONS)
    if not isinstance(descriptions, dict) or not descriptions:
        yield Rejected(record.item, "no description")
        return
    named = {stem_of(image) for image in images_of(record) or ()}
    for image, description in descriptions.items():
        if isinstance(meta.get("images"), list) and stem_of(image) not in named and not escapes_folder(image):
            yield Rejected(image or record.item, WITHDRAWN)
            continue
        yield _checked(record.item, meta.get("title"), image, description, untitled, where=image or record.item)


def _of_image(record: ImageRecord, untitled: bool) -> DescribedImage | Rejected:
    description = record.meta.get(DESCRIPTION)
    return _checked(record.item, record.meta.get("title"), record.image, description, untitled, where=record.where)


def _checked(
    item: str, title: Any, image: str, description: Any, untitled: bool, where: str
) -> DescribedImage | Rejected:
    if not image.strip():
        return Rejected(where, "no image name")
    if escapes_folder(image):
        return Rejected(where, "image name leaves the folder")
    title = title.strip() if isinstance(title, str) else ""
    if not title and not untitled:
        return Rejected(where, "no title")
    if not isinstance(description, str) or not description.strip():
        return Rejected(where, "no description")
    return DescribedImage(item, title, image, description.strip())
