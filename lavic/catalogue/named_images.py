"""Which image files a record of the metadata names: whatever else lies in an images folder is not the catalogue's."""

import re
from pathlib import PurePosixPath, PureWindowsPath

from lavic.catalogue.item2meta import ImageRecord, ItemRecord

DESCRIPTIONS, DESCRIPTION = "image_descriptions_llava_cleaned", "image_description_llava_cleaned"

_LEADS_ON = re.compile(r"[/\\:\0]")


def images_of(record: ItemRecord | ImageRecord) -> list[str] | None:
    """The file names of a record's images, as the crawler gives them; None where it says nothing of images.

    An item's `images` list names them, `ID_i.jpg` for each entry with a URL, and an empty one says that there are none.
    Without such a list the described images are the item's. A record of one image names it. Names that would lead out
    of the folder are left out.
    """
    if isinstance(record, ImageRecord):
        named = [record.image]
    elif not isinstance(record.meta, dict):
        return None
    elif isinstance(images := record.meta.get("images"), list):
        named = [f"{record.item}_{i}.jpg" for i, one in enumerate(images) if isinstance(one, dict) and one.get("large")]
    elif isinstance(described := record.meta.get(DESCRIPTIONS), dict) and described:
        named = list(described)
    else:
        return None
    return [image for image in named if image.strip() and not escapes_folder(image)]


def escapes_folder(name: str) -> bool:
    """Whether a file name would lead out of the folder it is joined to, on any system."""
    if name != ".." and not _LEADS_ON.search(name):
        return False  # nearly all, and at a hundredth of the time
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return absolute or ".." in windows.parts or "\0" in name


def stem_of(image: str) -> str:
    """A file name without its suffix: an image that was put into the folder by hand may be no JPEG."""
    return image.rpartition(".")[0] or image
