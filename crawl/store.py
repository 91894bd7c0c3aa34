"""Files on disk: written beside under a temporary name, fsynced, and only then renamed."""

import errno
import hashlib
import itertools
import os
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crawl.errors import StorageError, UserError
from crawl.verify import BrokenImageError, Bytes, ImageRules, VerifiedImage, to_verified_jpeg

# Errors that every further file would meet too.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE}


class FileError(Exception):
    """This one file cannot be written, for example because a folder stands under its name."""


@dataclass(slots=True)
class Written:
    """A verified file: still under its `temporary` name, or None if it already stands under the final one."""

    file_id: int
    temporary: str | None
    final: str
    size: int
    sha256: bytes
    mtime_ns: int = 0  # the file's time of change


class Store:
    """Writes the files of one crawl. Every method may be called from any thread."""

    def __init__(self, journal: Path, rules: ImageRules) -> None:
        """The temporary names carry the journal's: crawls with different journals can share a folder."""
        self._prefix = f".crawl-{zlib.crc32(journal.name.encode()):08x}-"
        self._process = os.getpid()  # a killed crawl's last file must not bear the name of the next crawl's first
        self._rules = rules
        self._numbers = itertools.count()

    def prepare_folder(self, folder: Path) -> None:
        """Make the folder, and see that it can be written. Raises UserError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder, prefix=self._prefix):
                pass
        except OSError as error:
            raise UserError(f"The folder {folder} cannot be written: {error.strerror}.") from error

    def remove_leftovers(self, folder: Path) -> None:
        """Remove what a killed crawl with the same journal left half-written. Raises UserError."""
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(self._prefix):
                        Path(entry.path).unlink()
        except OSError as error:
            raise UserError(f"The folder {folder} cannot be written: {error.strerror}.") from error

    def write(self, data: Bytes, targets: Iterable[tuple[int, str]]) -> tuple[VerifiedImage, list[Written]]:
        """Verify a body and write it beside each of the (file id, path) targets.

        Raises BrokenImageError, FileError, StorageError.
        """
        image = to_verified_jpeg(data, self._rules)
        digest = hashlib.sha256(image.data).digest()
        written: list[Written] = []
        try:
            for file_id, final in targets:
                name = f"{self._prefix}{self._process}-{next(self._numbers)}"
                temporary = os.path.join(os.path.dirname(final), name)  # noqa: PTH118, PTH120
                written.append(Written(file_id, temporary, final, len(image.data), digest))
                written[-1].mtime_ns = _write_new(temporary, image.data)
        except OSError as error:
            self.discard(written)
            raise _storage_or_file_error(final, error) from error
        return image, written

    def adopt(self, file_id: int, path: str, expected: bytes | None) -> tuple[VerifiedImage, Written]:
        """Verify a file that is already there, and rewrite it if it is no JPEG yet.

        `expected`: the SHA-256 that its bytes must have, if one is known. A broken file is removed.
        Raises BrokenImageError, FileError, StorageError.
        """
        try:
            mtime_ns = os.stat(path).st_mtime_ns  # noqa: PTH116
            data = Path(path).read_bytes()
            digest = hashlib.sha256(data).digest()
            try:
                if expected is not None and digest != expected:
                    raise BrokenImageError("the file is not the one that was stored")
                image = to_verified_jpeg(data, self._rules)
            except BrokenImageError:
                Path(path).unlink()
                raise
        except OSError as error:
            raise _storage_or_file_error(path, error) from error
        if image.data is data:
            return image, Written(file_id, None, path, len(data), digest, mtime_ns)
        return image, self.write(image.data, [(file_id, path)])[1][0]

    def copy(self, path: str, targets: Iterable[tuple[int, str]]) -> tuple[VerifiedImage, list[Written]]:
        """Write a file that is already there beside each target too. Raises as `write` does."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise _storage_or_file_error(path, error) from error
        return self.write(data, targets)

    def publish(self, files: Iterable[Written]) -> set[int]:
        """Make a batch durable under its final names. Returns the ids of files that could not get theirs.

        Raises StorageError.
        """
        waiting = [file for file in files if file.temporary is not None]
        failed: set[int] = set()
        try:
            for file in waiting:
                _sync(file.temporary)
            for file in waiting:
                try:
                    os.replace(file.temporary or "", file.final)  # noqa: PTH105
                except OSError as error:
                    if error.errno in DISK_ERRORS:
                        raise
                    failed.add(file.file_id)
            for folder in {os.path.dirname(file.final) for file in waiting}:  # noqa: PTH120
                _sync(folder)
        except OSError as error:
            self.discard(waiting)
            name = error.filename or "The disk"
            raise StorageError(f"{name} cannot be written: {error.strerror}.") from error
        self.discard(file for file in waiting if file.file_id in failed)
        return failed

    def discard(self, files: Iterable[Written]) -> None:
        """Remove what is still under a temporary name."""
        for file in files:
            if file.temporary is not None:
                Path(file.temporary).unlink(missing_ok=True)


def _write_new(path: str, data: Bytes) -> int:
    """Returns the new file's time in nanoseconds."""
    # Without `open`'s buffers and questions to the file system: it is once an image.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        if os.write(descriptor, data) < len(data):  # a disk that is all but full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _sync(path: str | None) -> None:
    descriptor = os.open(path or "", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_or_file_error(path: str, error: OSError) -> StorageError | FileError:
    if error.errno in DISK_ERRORS:
        return StorageError(f"{Path(path).parent} cannot be written: {error.strerror}.")
    return FileError(f"the file cannot be written: {error.strerror}")
