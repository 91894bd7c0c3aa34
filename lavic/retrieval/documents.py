"""What is indexed of an item: one text, made here for every command that searches the catalogue."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from lavic.catalogue.descriptions import DescribedImage, read_described_images
from lavic.catalogue.items import NO_TITLE, Item
from lavic.errors import UserError

Indexed = Literal["titles", "descriptions", "both"]


def item_documents(items: Mapping[str, Item], metadata: Sequence[Path], indexed: Indexed) -> dict[str, str]:
    """Every item's text by its ID; empty where there is nothing to index.

    They are in the order of a hash of their IDs: of items that match a conversation alike, the first are taken, and in
    the files' own order the last file's items, such as those held out, would never be among them.

    Args:
        items: the catalogue.
        metadata: the item2meta files it was read from, which hold the descriptions of all of an item's images.
        indexed: titles, descriptions, or both.

    Raises:
        UserError: descriptions alone are asked for, and no item has one.
    """
    parts: dict[str, list[str]] = {item: [] for item in items}
    if indexed != "descriptions":
        for item in items.values():
            if item.title != NO_TITLE:
                parts[item.id].append(item.title)
    if indexed != "titles":
        described = 0
        for path in metadata:
            for entry in read_described_images(path, untitled=True):
                if isinstance(entry, DescribedImage) and entry.item in parts:
                    parts[entry.item].append(entry.description)
                    described += 1
        if not described and indexed == "descriptions":
            raise UserError(
                f"No item of {', '.join(map(str, metadata))} has a description to index; write them with "
                "`python -m lavic describe`, or index titles."
            )
    return {item: "\n".join(parts[item]) for item in sorted(parts, key=_mixed)}


def _mixed(item: str) -> bytes:
    return hashlib.blake2b(item.encode("utf-8", "surrogatepass"), digest_size=8).digest()
