"""The usable samples of a source, checked once and kept as an Arrow table until what they depend on changes.

A table depends on its key (the source file's state, the settings, the tokenizer) and on the images that were looked at
when it was made: whether each exists, its size and its time, wherever it lies. Both are in the table's name, so that a
run that has an older table open keeps it. What cannot be used is listed beside the table.
"""

import fcntl
import gc
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from lavic.batching.streamed_rows import write_rows
from lavic.catalogue.image_checks import ImageChecks, Verdict
from lavic.errors import UserError
from lavic.files import write_text
from lavic.files.json_entries import read_json
from lavic.files.rejected import Rejected, as_json

log = logging.getLogger(__name__)

FORM = 4  # of what is written here; a new number makes older caches void


class TableBuild:
    """What one pass over a source finds beside its rows.

    Args:
        checks: give the verdicts on the images; None where there is no folder of them.

    Attributes:
        rejected: what cannot be used.
        facts: what else is told of the table, ready for JSON.
    """

    def __init__(self, checks: ImageChecks | None) -> None:
        self.rejected: list[Rejected] = []
        self.facts: dict[str, Any] = {}
        self._checks = checks
        self._images: dict[str, None] = {}

    def check_all(self, names: Sequence[str]) -> list[Verdict]:
        """Gives the verdict on each image, and notes that the table depends on it."""
        if self._checks is None:
            return ["image missing"] * len(names)
        self._images.update(dict.fromkeys(names))
        return self._checks.check_all(names)

    def check(self, name: str) -> Verdict:
        """Gives the verdict on one image, as `check_all`."""
        if self._checks is None:
            return "image missing"
        self._images[name] = None
        return self._checks.check(name)

    def images(self) -> list[str]:
        """Returns the images that were looked at."""
        return list(self._images)


Rows = Callable[[TableBuild], Iterable[dict[str, Any]]]


def cache_folder(given: Path | None) -> Path:
    """Returns the folder of tables: the given one, or `lavic` in the user's cache folder."""
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lavic"


def make_folder(cache_dir: Path) -> None:
    """Makes the folder of tables. Raises UserError where that fails."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The cache folder {cache_dir} cannot be made ({error.strerror}); give another by data.init_args.cache_dir."
        ) from None


def file_state(path: Path) -> list[Any]:
    """Returns what a key holds of a source file: its path, size and time."""
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def cached_table(
    cache_dir: Path, kind: str, key: Sequence[Any], schema: pa.Schema, checks: ImageChecks | None, rows: Rows
) -> tuple[Path, list[Rejected], dict[str, Any]]:
    """Finds a table in the cache, or makes it; of two runs that ask at once, one makes it and the other waits.

    Args:
        cache_dir: folder of tables; it is made if it does not exist.
        kind: what the table's name begins with.
        key: all that the table depends on, except the images; ready for JSON.
        schema: of the table.
        checks: of the folder of images.
        rows: makes the rows, in their order, and notes what it finds in the `TableBuild`.

    Returns:
        The Arrow file, what is left out of it, and the facts that were noted.

    Raises:
        UserError: the folder cannot be made, or whatever `rows` raises.
    """
    make_folder(cache_dir)
    digest = hashlib.sha256(json.dumps([FORM, *key], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
    stem = cache_dir / f"{kind}-{digest[:24]}"
    with _without_collection():
        if found := _find(stem, checks):
            return found
        with _alone(stem.with_name(f"{stem.name}.lock")):
            return _find(stem, checks) or _make(stem, schema, checks, rows)


def _find(stem: Path, checks: ImageChecks | None) -> tuple[Path, list[Rejected], dict[str, Any]] | None:
    """The table of the present state of the images that were looked at last, if it was made."""
    looked_at = _beside(stem, "images")
    if not looked_at.is_file():
        return None
    table = _table(stem, read_json(looked_at), checks)
    if not (table.is_file() and _told(table).is_file()):
        return None
    told = read_json(_told(table))
    return table, [Rejected(**one) for one in told["rejected"]], told["facts"]


def _make(
    stem: Path, schema: pa.Schema, checks: ImageChecks | None, rows: Rows
) -> tuple[Path, list[Rejected], dict[str, Any]]:
    build = TableBuild(checks)
    beside = stem.with_name(f"{stem.name}.{os.getpid()}.arrow")
    try:
        kept = write_rows(beside, schema, rows(build))
        if checks is not None:
            checks.save()
        table = _table(stem, build.images(), checks)
        write_text(_told(table), json.dumps({"rejected": as_json(build.rejected), "facts": build.facts}))
        beside.replace(table)
        write_text(_beside(stem, "images"), json.dumps(build.images()))
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    log.info("%s: %d samples, %d left out", table.name, kept, len(build.rejected))
    return table, build.rejected, build.facts


def _table(stem: Path, images: list[str], checks: ImageChecks | None) -> Path:
    state = checks.state(images) if checks is not None else "text"
    return stem.with_name(f"{stem.name}-{state[:16]}.arrow")


def _told(table: Path) -> Path:
    return table.with_suffix(".json")


def _beside(stem: Path, what: str) -> Path:
    return stem.with_name(f"{stem.name}.{what}.json")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Lets one process at a time in, where the file system has locks; a killed one leaves none."""
    with lock.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _without_collection() -> Iterator[None]:
    """Stops Python's search for cycles, which a large catalogue has none of and many objects to look through."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
