"""Which images of an item2meta file wait for a description, what was described, and the new file with all of it.

A text is kept by a key that holds all that it was written from; whoever asks with another key finds none.

Each process appends a line for every image to a journal of its own and never writes elsewhere, so a kill loses the last
batch at most. Whoever finds that all journals together cover the file writes the new one.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lavic.catalogue.item2meta import ImageRecord, ItemRecord, Record, read_item2meta
from lavic.catalogue.named_images import DESCRIPTION, DESCRIPTIONS, images_of
from lavic.errors import UserError
from lavic.files import writing
from lavic.files.json_entries import Entry, read_entries


@dataclass(frozen=True, slots=True)
class Waiting:
    """An image without a description."""

    title: str
    image: str  # file name inside the images folder


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the journal: an image's description, or why it has none; `key` is a hash of what it was made from."""

    key: str
    image: str
    text: str = ""
    fault: str = ""


def waiting_images(metadata: Path) -> Iterator[Waiting]:
    """Every image that the file names and does not describe, in its order, each once. Raises UserError."""
    seen: set[str] = set()
    for record in _records(metadata):
        title = record.meta.get("title")
        for image in images_of(record) or ():
            if image not in seen and not _described(record, image):
                seen.add(image)
                yield Waiting(title.strip() if isinstance(title, str) else "", image)


def names_images(metadata: Path) -> bool:
    """Whether the file names any image, described or not. Raises UserError."""
    return any(images_of(record) for record in _records(metadata))


_FIELDS = {field.name for field in fields(Said)}


class Journal:
    """What all processes have said so far, and this one's file.

    Args:
        folder: of this output and model.
        shard, shards: this process's number and how many there are.
    """

    def __init__(self, folder: Path, shard: int = 0, shards: int = 1) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"described-{shard}-of-{shards}.jsonl"

    def read(self) -> dict[str, Said]:
        """By key; a description counts more than a fault. A line that a kill cut is as if it were not there."""
        said: dict[str, Said] = {}
        for path in sorted(self.folder.glob("described-*.jsonl")):
            for line in read_entries(path):
                if isinstance(line, Entry) and isinstance(line.value, dict) and set(line.value) == _FIELDS:
                    entry = Said(**line.value)
                    if entry.key not in said or said[entry.key].fault:
                        said[entry.key] = entry
        return said

    def has_older_form(self) -> bool:
        """Whether a folder beside this one keeps texts without keys, of which nobody knows what they were made from."""
        for path in self.folder.parent.glob("*/described-*.jsonl"):
            first = next((line.value for line in read_entries(path) if isinstance(line, Entry)), None)
            if isinstance(first, dict) and "key" not in first:
                return True
        return False

    def open(self) -> "Journal":
        """Ends the line that a kill may have cut."""
        self._lines = self._file.open("a", encoding="utf-8")
        if self._file.stat().st_size and not self._file.read_bytes().endswith(b"\n"):
            self._lines.write("\n")
        return self

    def add(self, *said: Said) -> None:
        """Appends lines; they survive this process from here on."""
        self._lines.write("".join(json.dumps(asdict(one)) + "\n" for one in said))
        self._lines.flush()

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One process at a time, where the file system has locks: several may find that all is described."""
        with (self.folder / "turn").open("a") as file:
            with suppress(OSError):
                fcntl.lockf(file, fcntl.LOCK_EX)
            yield

    def is_in(self, output: Path, since: float) -> bool:
        """Whether another process has written `output`, with all lines in it, after `since` (seconds of the epoch)."""
        written = output.stat().st_mtime if output.exists() else 0.0
        return written > max([since, *(path.stat().st_mtime for path in self.folder.glob("described-*.jsonl"))])


def write_described(metadata: Path, output: Path, texts: Mapping[str, str]) -> None:
    """The item2meta file again, with the descriptions, by their images' names, in it; whole or not at all.

    Items become an object by their IDs, images JSON lines, as published. Other fields stay as they are.
    """
    with writing(output) as file:
        first, seen = True, set()
        for record in _records(metadata):
            meta: dict[str, Any] = dict(record.meta)
            if isinstance(record, ImageRecord):
                if record.image in texts:
                    meta[DESCRIPTION] = texts[record.image]
                file.write(json.dumps(meta, ensure_ascii=False) + "\n")
                continue
            if record.item in seen:
                continue
            seen.add(record.item)
            new = {image: texts[image] for image in images_of(record) or () if image in texts}
            if new:
                old = meta.get(DESCRIPTIONS)
                meta[DESCRIPTIONS] = {**(old if isinstance(old, dict) else {}), **new}
            start = "{\n" if first else ",\n"
            file.write(f"{start}{json.dumps(record.item, ensure_ascii=False)}: {json.dumps(meta, ensure_ascii=False)}")
            first = False
        if not first:
            file.write("\n}\n")


def _records(metadata: Path) -> Iterator[Any]:
    """The usable records; items and images in one file are a mistake."""
    kind: type[Record] | None = None
    for record in read_item2meta(metadata):
        if isinstance(record, ItemRecord | ImageRecord) and isinstance(record.meta, dict):
            kind = kind or type(record)
            if type(record) is not kind:
                raise UserError(f"{metadata} holds items and images ({record.where}); put them into two files.")
            yield record


def _described(record: Record, image: str) -> bool:
    if isinstance(record, ImageRecord):
        return bool(record.meta.get(DESCRIPTION))
    descriptions = record.meta.get(DESCRIPTIONS)
    return isinstance(descriptions, dict) and bool(descriptions.get(image))
