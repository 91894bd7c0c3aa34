"""Which images of a folder are whole; each file is decoded once and not again until its size or time changes."""

import hashlib
import json
import os
from pathlib import Path

from lavic.catalogue.images import BrokenImage, image_size

Verdict = tuple[int, int] | str  # width and height in pixels, or why the image cannot be used


class ImageChecks:
    """Verdicts on the images of one folder, kept in a file of the cache between runs."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self.folder = folder
        self._file = cache_dir / f"images-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"
        self._stats = _sizes_and_times(folder)
        self._known = self._read()  # here and not at first use, which several threads would share

    @property
    def listing(self) -> str:
        """A hash of every file's name, size and time: it changes when any image does."""
        lines = (f"{name}\0{size}\0{time}\n" for name, (size, time) in sorted(self._stats.items()))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def check(self, name: str) -> Verdict:
        """Decodes one image, unless that was done before; safe to call from several threads."""
        known = self._known
        stat = self._stats.get(name)
        if stat is None and not (self.folder / name).is_file():
            return "image missing"
        if stat is not None and name in known and known[name][0] == list(stat):
            verdict = known[name][1]
            return verdict if isinstance(verdict, str) else (verdict[0], verdict[1])
        try:
            size = image_size(self.folder / name)
        except BrokenImage as broken:
            if stat is not None:
                known[name] = (list(stat), str(broken))
            return str(broken)
        if stat is not None:
            known[name] = (list(stat), list(size))
        return size

    def save(self) -> None:
        """Keeps the verdicts for the next run."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(f".{os.getpid()}.partial")
        beside.write_text(json.dumps(self._known), encoding="utf-8")
        beside.replace(self._file)

    def _read(self) -> dict[str, tuple[list[int], list[int] | str]]:
        try:
            return dict(json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}


def _sizes_and_times(folder: Path) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                stat = entry.stat()
                found[entry.name] = (stat.st_size, stat.st_mtime_ns)
    return found
