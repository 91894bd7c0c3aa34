"""Which images of a folder are whole; each file is decoded once and not again until its size or time changes.

What the crawler stored was decoded by the crawler: its journal is believed of files that are as it says.
"""

import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from lavic.catalogue.crawled_images import CrawledImage, crawled_images
from lavic.catalogue.images import RULE, BrokenImage, image_size, open_image
from lavic.errors import UserError
from lavic.files import write_text
from lavic.files.json_entries import read_json

Verdict = tuple[int, int] | str  # width and height in pixels, upright, or why the image cannot be used
Known = dict[str, tuple[list[int], list[int] | str]]  # by name the file's size and time, and the verdict


def open_checked(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """Decodes an image that was found whole when the run began.

    Args:
        path: the file.
        size: the image's (width, height) in pixels at that time, where a text depends on it.

    Raises:
        UserError: it is not whole any more, or of another size.
    """
    again = "restore it and start again with --resume."
    try:
        image = open_image(path)
    except BrokenImage as broken:
        raise UserError(
            f"The image {path} was whole when the run began and is not any more ({broken}); {again}"
        ) from None
    if size is not None and image.size != tuple(size):
        was, now = (f"{width} x {height}" for width, height in (size, image.size))
        raise UserError(f"The image {path} had {was} pixels when the run began and has {now} now; {again}")
    return image


class ImageChecks:
    """Verdicts on the images of one folder, kept in a file of the cache between runs.

    An image is named by its path inside the folder. Only files that are asked for are looked at, each once.
    """

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self.folder = folder
        name = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._file = cache_dir / f"images-{RULE}-{name}.json"
        self._stats: dict[str, tuple[int, int] | None] = {}
        self._earlier: tuple[Known, Mapping[str, CrawledImage]] | None = None
        self._reading = threading.Lock()

    def state(self, names: Iterable[str]) -> str:
        """Hashes each file's name, size and time, or that there is none, and the rule for decoding."""
        lines = "".join(f"{name}\0{self._stat(name)}\n" for name in names)
        return hashlib.sha256(f"{RULE}\n{lines}".encode("utf-8", "surrogatepass")).hexdigest()

    def undecided(self, names: Iterable[str]) -> list[str]:
        """Which of these images have to be read: neither the folder's file of verdicts nor a journal knows them."""
        return [name for name in names if self._stat(name) and self._remembered(name) is None]

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
        if self._stat(name) is None:
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
        write_text(self._file, json.dumps(self._known_and_crawled()[0]))

    def _noted(self, name: str, verdict: Verdict) -> Verdict:
        """The verdict, kept if it is of a file that exists."""
        if found := self._stat(name):
            known = self._known_and_crawled()[0]
            known[name] = (list(found), verdict if isinstance(verdict, str) else list(verdict))
        return verdict

    def _remembered(self, name: str) -> Verdict | None:
        """The verdict on a file whose size and time are as they were."""
        found = self._stat(name)
        if found is None:
            return None
        several_known, several_crawled = self._known_and_crawled()
        known, crawled = several_known.get(name), several_crawled.get(name)
        if known is not None and known[0] == list(found):
            return known[1] if isinstance(known[1], str) else (known[1][0], known[1][1])
        if crawled is not None and found == (crawled.size, crawled.mtime_ns):
            return crawled.sides
        return None

    def _as_crawled(self, name: str) -> Verdict | None:
        """The verdict on a file with the bytes that the crawler stored but another time: it was copied."""
        found, crawled = self._stat(name), self._known_and_crawled()[1].get(name)
        if found is None or crawled is None or found[0] != crawled.size:
            return None
        with (self.folder / name).open("rb") as file:
            same = hashlib.file_digest(file, "sha256").digest() == crawled.sha256
        return crawled.sides if same else None

    def _stat(self, name: str) -> tuple[int, int] | None:
        """A file's size and time as they were when it was first asked for; None where there is no file."""
        if name not in self._stats:
            try:
                found = os.stat(f"{self.folder}/{name}")  # noqa: PTH116  (a fifth of the time that a Path takes)
                self._stats[name] = (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None
            except (OSError, ValueError):
                self._stats[name] = None
        return self._stats[name]

    def _known_and_crawled(self) -> tuple[Known, Mapping[str, CrawledImage]]:
        """The verdicts of earlier runs and the crawler's journal, read when they are first needed, by one thread."""
        if self._earlier is None:
            with self._reading:
                if self._earlier is None:
                    self._earlier = self._read(), crawled_images(self.folder)
        return self._earlier

    def _read(self) -> Known:
        try:
            return dict(read_json(self._file)) if self._file.exists() else {}
        except (UserError, TypeError, ValueError):
            return {}
