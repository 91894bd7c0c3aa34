"""From the sources to what is to be done: sources into the journal first, then page by page out of it."""

import itertools
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from crawl.journal import FileRow, Journal, State, UrlRow
from crawl.safety import refuse_name
from crawl.sources import Source, Wanted, read_source
from lavic.errors import UserError
from lavic.files.rejected import Rejected

BATCH = 1000  # entries of a source that are held at once
PAGE = 500  # URLs of the journal that are held at once
FIRST_PAGE = 100  # fewer, so that the first requests leave at once


@dataclass(slots=True)
class Job:
    """A URL whose files are not all known to be there. The three lists share out its files."""

    row: UrlRow
    present: list[FileRow] = field(default_factory=list)  # as the journal says
    unverified: list[FileRow] = field(default_factory=list)  # on disk, but not as the journal says
    missing: list[FileRow] = field(default_factory=list)
    refresh: bool = False  # the host is asked whether what is on disk is still its image


@dataclass(slots=True)
class Page:
    """What is to be done for one stretch of the journal, and what is not."""

    jobs: list[Job] = field(default_factory=list)
    present: int = 0  # URLs with all their files
    given_up: int = 0  # URLs that failed for good in an earlier run


def scan(
    source: Source, journal: Journal, shard: tuple[int, int], first_image_only: bool, stop: threading.Event
) -> str | None:
    """Enter all that a source wants into the journal. Returns why it could not be read to its end, or gave nothing.

    `shard`: K and N, 1-based. Raises StorageError.
    """
    key, (part, parts) = journal.folder_key(source.out), shard
    entries = read_source(source.file, first_image_only)
    fault: str | None = None
    more = True
    while more and not stop.is_set():
        wanted: list[Wanted] = []
        problems: list[Rejected] = []
        batch: list[Wanted | Rejected] = []
        try:
            batch.extend(itertools.islice(entries, BATCH))  # what stands before a fault is kept
            more = bool(batch)
        except UserError as error:
            fault, more = str(error), False
            problems.append(Rejected("the file", fault))
        for entry in batch:
            if isinstance(entry, Rejected):
                problems.append(entry)
            elif parts > 1 and zlib.crc32(entry.url.encode(errors="surrogatepass")) % parts != part - 1:
                continue
            elif reason := refuse_name(entry.name) or _refuse_text(entry.url):
                problems.append(Rejected(entry.place, f"{reason}: {entry.name[:80]!r} {entry.url[:200]!r}"))
            else:
                wanted.append(entry)
        clashes = journal.want(key, wanted)
        journal.note_problems(source.file, problems + clashes)
    return fault


def _refuse_text(url: str) -> str | None:
    """Half a surrogate pair, which JSON can smuggle in, was replaced when the file was read."""
    return "the URL is not Unicode" if "\ufffd" in url else None


def pages(journal: Journal, retry_failed: bool, verify: bool, refresh: bool) -> Iterator[Page]:
    """Go through this run's URLs in the order in which they were first seen.

    `verify` takes no file for present before it has been read again, `refresh` none before its host was asked.
    """
    after, length = 0, FIRST_PAGE
    while rows := journal.page(after, length):
        after, length = rows[-1].id, PAGE
        page = Page()
        for row in rows:
            if row.files:
                _sort_in(page, row, retry_failed, verify, refresh)
        yield page


def _sort_in(page: Page, row: UrlRow, retry_failed: bool, verify: bool, refresh: bool) -> None:
    job = Job(row, refresh=refresh)
    for file in row.files:
        size = _size_on_disk(file.path)
        if size is None:
            job.missing.append(file)
        elif size == file.size and not verify:
            job.present.append(file)
        else:
            job.unverified.append(file)
    if not job.missing and not job.unverified and not refresh:
        page.present += 1
    elif row.state is State.PERMANENT and job.missing and not job.unverified and not retry_failed:
        page.given_up += 1
    else:
        page.jobs.append(job)


def _size_on_disk(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
