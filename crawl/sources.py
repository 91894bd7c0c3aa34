"""Metadata files as streams of wanted images; what is malformed is passed on, never raised.

The files are item2meta in any of its shapes (`lavic/catalogue/item2meta.py`): an item's `images[i].large` becomes
`ID_i.jpg`, and an image's `image` becomes its `image_name`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crawl.errors import UserError
from lavic.catalogue.item2meta import ImageRecord, ItemRecord, kind_of, read_item2meta
from lavic.files.rejected import Rejected


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


def read_source(file: Path, first_image_only: bool = False) -> Iterator[Wanted | Rejected]:
    """Streams `file`, in constant memory.

    Raises:
        UserError: after what stands before, the rest of the file cannot be read; or it names no image at all.
    """
    found = False
    for record in read_item2meta(file):
        if isinstance(record, Rejected):
            yield record
            continue
        images = _item_images(record, first_image_only) if isinstance(record, ItemRecord) else [_image(record)]
        for entry in images:
            found = found or isinstance(entry, Wanted)
            yield entry
    if not found:
        needed = 'an item names them as {"images": [{"large": URL}]}, an image as {"image": URL, "image_name": NAME}'
        raise UserError(f"No image is named in {file}: {needed}.")


def _item_images(record: ItemRecord, first_image_only: bool) -> Iterator[Wanted | Rejected]:
    item = record.item
    if not isinstance(record.meta, dict):
        yield Rejected(item, f"the item is {kind_of(record.meta)}, not an object")
        return
    images = record.meta.get("images")
    if not isinstance(images, list):
        yield Rejected(item, f"images is {kind_of(images)}, not a list")
        return
    for index, image in enumerate(images):
        place = f"{item} images[{index}]"
        url = image.get("large") if isinstance(image, dict) else None
        if isinstance(url, str) and url.strip():
            yield Wanted(url.strip(), f"{item}_{index}.jpg", place)
            if first_image_only:
                return
        elif isinstance(image, dict):
            yield Rejected(place, f"large is {kind_of(url)}, not a URL")
        else:
            yield Rejected(place, f"the image is {kind_of(image)}, not an object")


def _image(record: ImageRecord) -> Wanted | Rejected:
    url = record.meta.get("image")
    if isinstance(url, str) and url.strip():
        return Wanted(url.strip(), record.image, record.where)
    return Rejected(record.where, f"image is {kind_of(url)}, not a URL")
