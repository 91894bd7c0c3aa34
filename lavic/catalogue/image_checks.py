"""Which images of a folder are whole; each file is decoded once and not again until its size or time changes.

What the crawler stored was decoded by the crawler: its journal is believed of files that are as it says.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from lavic.catalogue.crawled_images import crawled_images
from lavic.catalogue.images import RULE, BrokenImage, image_size
from lavic.errors import UserError
from lavic.files import write_text
from lavic.files.json_entries import read_json

Verdict = tuple[int, int] | str  # width and height in pixels, upright, or why the image cannot be used


class ImageChecks:
    """Verdicts on the images of one folder, kept in a file of the cache between runs."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self.folder = folder
        name = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._file = cache_dir / f"images-{RULE}-{name}.json"
        self._stats = _sizes_and_times(folder)
        self._known = self._read()  # here and not at first use, which several threads would share
        self._crawled = crawled_images(folder)

    @cached_property
    def listing(self) -> str:
        """A hash of every file's name, size and time, and of the rule for decoding: it changes when an image does."""
        lines = (f"{name}\0{size}\0{time}\n" for name, (size, time) in sorted(self._stats.items()))
        return hashlib.sha256((f"{RULE}\n" + "".join(lines)).encode("utf-8", "surrogateescape")).hexdigest()

    def undecided(self, names: Iterable[str]) -> list[str]:
        """Which of these images have to be read: neither the folder's file of verdicts nor a journal knows them."""
        return [name for name in names if name in self._stats and self._remembered(name) is None]

    def check_all(self, names: Sequence[str]) -> list[Verdict]:
        """The verdict on each; what has to be read is read by several threads, which Pillow leaves free to run."""
        found: dict[str, Verdict] = {}
        for name in names:
            if (verdict := self._remembered(name)) is not None:
                found[name] = self._noted(name, verdict)
        others = [name for name in dict.fromkeys(names) if name not in found]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found.update(zip(others, pool.map(self.check, others), strict=True))
        return [found[name] for name in names]

    def check(self, name: str) -> Verdict:
        """Decodes one image, unless that was done before; safe to call from several threads."""
        stat = self._stats.get(name)
        if stat is None and not (self.folder / name).is_file():
            return "image missing"
        verdict = self._remembered(name) or self._as_crawled(name)
        if verdict is None:
            try:
                verdict = image_size(self.folder / name)
            except BrokenImage as broken:
                verdict = str(broken)
        return self._noted(name, verdict)

    def save(self) -> None:
        """Keeps the verdicts for the next run."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, json.dumps(self._known))

    def _noted(self, name: str, verdict: Verdict) -> Verdict:
        """The verdict, kept if it is of a file whose size and time are known."""
        if stat := self._stats.get(name):
            self._known[name] = (list(stat), verdict if isinstance(verdict, str) else list(verdict))
        return verdict

    def _remembered(self, name: str) -> Verdict | None:
        """The verdict on a file whose size and time are as they were."""
        stat, known, crawled = self._stats.get(name), self._known.get(name), self._crawled.get(name)
        if stat is None:
            return None
        if known is not None and known[0] == list(stat):
            return known[1] if isinstance(known[1], str) else (known[1][0], known[1][1])
        if crawled is not None and stat == (crawled.size, crawled.mtime_ns):
            return crawled.sides
        return None

    def _as_crawled(self, name: str) -> Verdict | None:
        """The verdict on a file with the bytes that the crawler stored but another time: it was copied."""
        stat, crawled = self._stats.get(name), self._crawled.get(name)
        if stat is None or crawled is None or stat[0] != crawled.size:
            return None
        with (self.folder / name).open("rb") as file:
            same = hashlib.file_digest(file, "sha256").digest() == crawled.sha256
        return crawled.sides if same else None

    def _read(self) -> dict[str, tuple[list[int], list[int] | str]]:
        try:
            return dict(read_json(self._file)) if self._file.exists() else {}
        except (UserError, TypeError, ValueError):
            return {}


def _sizes_and_times(folder: Path) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                stat = entry.stat()
                found[entry.name] = (stat.st_size, stat.st_mtime_ns)
    return found
