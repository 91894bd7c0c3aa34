"""What is known of every URL and file, in one SQLite file beside the image folders.

The journal never outruns the disk: a file is renamed first and entered afterwards. Killed in between, the
crawl finds a file without an entry, which it decodes and enters without fetching it again.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from crawl.errors import StorageError, UserError
from crawl.headers import Validators
from crawl.schema import VERSION, migrate
from crawl.sources import Wanted
from lavic.files.rejected import Rejected


class State(StrEnum):
    """Where a URL stands."""

    NEW = "new"  # never asked
    DONE = "done"  # its image was stored
    TRANSIENT = "transient"  # failed in passing: asked again by every run
    PERMANENT = "permanent"  # failed for good: asked again with --retry-failed
    REFUSED = "refused"  # against the crawler's rules: looked at again by every run, since options change


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file that is wanted, and its size in bytes and SHA-256 if it was ever stored."""

    id: int
    path: str
    size: int | None
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class UrlRow:
    """A URL that this run wants, with all its files, and what the host knows the stored image by."""

    id: int
    url: str
    state: State
    files: list[FileRow]
    validators: Validators = field(default_factory=Validators)


@dataclass(slots=True)
class Verdict:
    """What became of a URL in this run; `files` holds (file id, size, SHA-256, time in ns) of what stands on disk."""

    url_id: int
    state: State
    tries: int = 0
    status: int | None = None
    reason: str | None = None
    size: int | None = None
    width: int | None = None
    height: int | None = None
    sha256: bytes | None = None
    files: Sequence[tuple[int, int, bytes, int]] = ()
    validators: Validators = field(default_factory=Validators)


class Journal:
    """One open journal. Methods may be called from any thread; one runs at a time."""

    def __init__(self, path: Path, dry_run: bool = False) -> None:
        """Open or make the journal. `dry_run` keeps every change to itself. Raises UserError."""
        self._path = path
        self._dry_run = dry_run
        self._lock = threading.Lock()
        self._folder = path.absolute().parent
        self.run = 0
        # A dry run without a journal works on SQLite's own temporary file.
        name = "" if dry_run and not path.exists() else str(path)
        try:
            self._database = sqlite3.connect(name, timeout=1.0, isolation_level=None, check_same_thread=False)
            # One crawl at a time; WAL, so that a kill at any moment leaves whole transactions.
            self._database.executescript(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                "PRAGMA cache_size = -16000; PRAGMA journal_size_limit = 16000000;"
            )
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in range(VERSION + 1):
                raise UserError(f"The journal {path} has version {version}, not {VERSION}: use --journal.")
            self._database.execute("BEGIN IMMEDIATE")
            if version != VERSION:
                migrate(self._database, version)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise UserError(f"Another crawl uses the journal {path}: wait for it or stop it.") from error
            raise UserError(f"The journal {path} cannot be opened: {error}. Use --journal.") from error
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path} is not a journal: {error}. Move it away, or use --journal.") from error

    def close(self) -> None:
        """Commit and close; a dry run's changes are thrown away."""
        with self._lock, suppress(sqlite3.Error):  # a full disk has been reported by then
            self._database.execute("ROLLBACK" if self._dry_run else "COMMIT")
        self._database.close()

    def _commit(self) -> None:
        if not self._dry_run:
            self._database.execute("COMMIT")
            self._database.execute("BEGIN IMMEDIATE")

    def _unwritable(self, error: sqlite3.Error) -> StorageError:
        return StorageError(f"The journal {self._path} cannot be written: {error}.")

    # --- what the sources want ---

    def begin_run(self) -> None:
        """Start a run: what earlier runs wanted is out of scope until this run's sources name it again.

        Raises StorageError.
        """
        try:
            with self._lock:
                row = self._database.execute("INSERT INTO run (started) VALUES (?)", (time.time(),))
                self.run = row.lastrowid or 0
                self._database.execute("DELETE FROM problem")
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    def folder_key(self, out: Path) -> str:
        """The prefix of the paths in `out`: relative inside the journal's folder, which may then move."""
        absolute = out.absolute()
        inside = absolute.is_relative_to(self._folder)
        return f"{absolute.relative_to(self._folder) if inside else absolute}/"

    def want(self, folder_key: str, wanted: Iterable[Wanted]) -> list[Rejected]:
        """Enter a batch of wanted images, and remove the files whose URL has changed since they were stored.

        They go before the change is entered: killed in between, no run takes them for the new URL's.

        Returns the entries whose file name this run's sources have already given to another URL. Raises StorageError.
        """
        clashes: list[Rejected] = []
        ask = self._database.execute
        try:
            with self._lock:
                for item in wanted:
                    row = ask("SELECT id FROM url WHERE url = ?", (item.url,)).fetchone()
                    url_id = row[0] if row else ask("INSERT INTO url (url) VALUES (?)", (item.url,)).lastrowid
                    path = folder_key + item.name
                    file = ask("SELECT id, url_id, run FROM file WHERE path = ?", (path,)).fetchone()
                    if file is None:
                        ask("INSERT INTO file (path, url_id, run) VALUES (?, ?, ?)", (path, url_id, self.run))
                    elif file[1] == url_id:
                        ask("UPDATE file SET run = ? WHERE id = ?", (self.run, file[0]))
                    elif file[2] == self.run:
                        clashes.append(Rejected(item.place, f"another URL has the file name {item.name!r}"))
                    else:
                        ask(
                            "UPDATE file SET url_id = ?, run = ?, size = NULL, sha256 = NULL, mtime_ns = NULL"
                            " WHERE id = ?",
                            (url_id, self.run, file[0]),
                        )
                        if not self._dry_run:
                            (self._folder / path).unlink(missing_ok=True)
                self._commit()
        except sqlite3.Error as error:
            raise self._unwritable(error) from error
        return clashes

    def note_problems(self, source: Path, problems: Iterable[Rejected]) -> None:
        """Enter what was malformed or refused in a source. Raises StorageError."""
        rows = ((f"{source} {problem.where}", problem.reason) for problem in problems)
        try:
            with self._lock:
                self._database.executemany("INSERT INTO problem VALUES (?, ?)", rows)
                self._commit()
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    # --- what this run does ---

    def page(self, after: int, length: int) -> list[UrlRow]:
        """The next `length` URLs of the journal behind id `after`, those without files in this run too."""
        with self._lock:
            urls = self._database.execute(
                "SELECT id, url, state, etag, last_modified FROM url WHERE id > ? ORDER BY id LIMIT ?", (after, length)
            ).fetchall()
            if not urls:
                return []
            files = self._database.execute(
                "SELECT url_id, id, path, size, sha256 FROM file WHERE url_id BETWEEN ? AND ? AND run = ?",
                (urls[0][0], urls[-1][0], self.run),
            ).fetchall()
        rows = {id_: UrlRow(id_, url, State(state), [], Validators(*known)) for id_, url, state, *known in urls}
        for url_id, id_, path, size, sha256 in files:
            rows[url_id].files.append(FileRow(id_, os.path.join(self._folder, path), size, sha256))  # noqa: PTH118
        return list(rows.values())

    def enter(self, verdicts: Iterable[Verdict]) -> None:
        """Enter what became of a batch of URLs, in one transaction. Raises StorageError."""
        try:
            with self._lock:
                for verdict in verdicts:
                    self._database.execute(
                        "UPDATE url SET state = ?, tries = ?, status = ?, reason = ?, size = ?, width = ?,"
                        " height = ?, sha256 = ?, time = ?, etag = ?, last_modified = ? WHERE id = ?",
                        (
                            verdict.state, verdict.tries, verdict.status, verdict.reason, verdict.size,
                            verdict.width, verdict.height, verdict.sha256, time.time(), verdict.validators.etag,
                            verdict.validators.last_modified, verdict.url_id,
                        ),
                    )  # fmt: skip
                    for file_id, size, sha256, mtime_ns in verdict.files:
                        self._database.execute(
                            "UPDATE file SET size = ?, sha256 = ?, mtime_ns = ? WHERE id = ?",
                            (size, sha256, mtime_ns, file_id),
                        )
                self._commit()
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    # --- what there is to say at the end ---

    def count_wanted(self) -> int:
        """The number of different URLs that this run wants."""
        return int(self._one("SELECT count(DISTINCT url_id) FROM file WHERE run = ?", self.run))

    def count_problems(self) -> int:
        """The number of malformed or refused entries in this run's sources."""
        return int(self._one("SELECT count(*) FROM problem"))

    def _one(self, query: str, *values: int) -> int:
        with self._lock:
            return int(self._database.execute(query, values).fetchone()[0])

    def tally(self) -> list[tuple[State, str, int]]:
        """State, reason up to its first colon, and number of this run's URLs; the most frequent first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT state, CASE instr(ifnull(reason, ''), ':') WHEN 0 THEN ifnull(reason, '')"
                " ELSE substr(reason, 1, instr(reason, ':') - 1) END AS short, count(*) AS n"
                " FROM url WHERE id IN (SELECT url_id FROM file WHERE run = ?)"
                " GROUP BY state, short ORDER BY n DESC",
                (self.run,),
            ).fetchall()
        return [(State(state), reason, number) for state, reason, number in rows]

    def reasons(self, state: State, most: int = 3) -> list[tuple[str, int]]:
        """The most frequent reasons of this run's URLs in a state, whole, and how many have each."""
        with self._lock:
            return self._database.execute(
                "SELECT reason, count(*) AS n FROM url WHERE state = ?"
                " AND id IN (SELECT url_id FROM file WHERE run = ?) GROUP BY reason ORDER BY n DESC, reason LIMIT ?",
                (state, self.run, most),
            ).fetchall()

    def failures(self) -> Iterator[dict[str, str | int | None]]:
        """One record for each file of this run without an image and for each problem in the sources."""
        with self._lock:
            for url, path, state, reason, status, tries in self._database.execute(
                "SELECT url, path, state, reason, status, tries FROM url JOIN file ON url_id = url.id"
                " WHERE run = ? AND state NOT IN ('done', 'new') ORDER BY url.id",
                (self.run,),
            ):
                yield {
                    "url": url, "file": path, "state": state, "reason": reason,
                    "status": status, "tries": tries,
                }  # fmt: skip
            for place, reason in self._database.execute("SELECT place, reason FROM problem"):
                yield {"place": place, "state": "malformed", "reason": reason}
