"""What the crawler's journal says of a folder's images: each was decoded to its end when it was stored.

The journal is the SQLite file beside the image folders (`crawl/journal.py` writes it): size, time and SHA-256 of every
file, and the sides of its image. A file that is still as it says need not be decoded again.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

VERSIONS = (2, 3)  # of the journal; older ones have no times, and the sides of lying images as stored

_QUERY = """
SELECT file.path, file.size, file.mtime_ns, file.sha256, url.width, url.height FROM file JOIN url ON url_id = url.id
WHERE url.state = 'done' AND file.sha256 = url.sha256 AND file.mtime_ns IS NOT NULL
"""


class CrawledImage(NamedTuple):
    """A stored file: bytes, time of change in ns, SHA-256, and its image's upright sides in pixels."""

    size: int
    mtime_ns: int
    sha256: bytes
    sides: tuple[int, int]


def crawled_images(folder: Path) -> dict[str, CrawledImage]:
    """By file name, what the journals beside `folder` know of its images; empty without a journal that can be read."""
    folder = folder.resolve()
    found: dict[str, CrawledImage] = {}
    for journal in sorted(folder.parent.glob("crawl*.sqlite")):  # each shard of a crawl has its own
        found.update(_read(journal, folder))
    return found


def _read(journal: Path, folder: Path) -> Iterator[tuple[str, CrawledImage]]:
    prefixes = (f"{folder.name}/", f"{folder}/")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(journal))}?mode=ro", uri=True, timeout=0)) as database:
            if database.execute("PRAGMA user_version").fetchone()[0] not in VERSIONS:
                return
            for path, size, mtime_ns, sha256, *sides in database.execute(_QUERY):
                for prefix in prefixes:
                    if path.startswith(prefix):
                        name = path[len(prefix) :]
                        yield name, CrawledImage(size, mtime_ns, sha256, (sides[0], sides[1]))
    except sqlite3.Error:  # a crawl is using it, or it is no journal: the images are looked at themselves
        return
