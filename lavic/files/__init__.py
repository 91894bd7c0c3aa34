"""The one reader of text that users give, and the one writer of files that others read.

Read: UTF-8 with or without a byte order mark, UTF-16 and UTF-32, either of them under gzip, with any line ends. Half an
emoji (a lone surrogate, raw or as an escape like `\\ud83d` in JSON) becomes U+FFFD when it is read and nowhere else, so
that whatever was read can be tokenised and written. What cannot be read is a UserError that names the file and the
line. JSON in all its shapes is read on top of this, by `lavic/files/json_entries.py`.

Written: beside the final name, synced, and then renamed: a reader sees the old file or the new one, with the rights
that the umask gives. Text that cannot be encoded gets U+FFFD too, since a writer must not fail after the work is done.
"""

import codecs
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from lavic.errors import UserError

ARCHIVES = {
    b"PK\x03\x04": "a zip archive", b"\xfd7zXZ\0": "compressed by xz", b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PAR1\x15": "a Parquet table", b"SQLite format 3\0": "a database",
}  # fmt: skip

_HALF = re.compile("[\ud800-\udfff]")


def read_text(source: Path | BinaryIO) -> str:
    """A whole text file, or standard input's bytes, with `\\n` for every line end. Raises UserError."""
    stream = open_utf8(source)
    with naming_faults(source):
        text = stream.read().decode("utf-8", "surrogateescape")
    if isinstance(source, Path):
        stream.close()
    return re.sub("\r\n?", "\n", decoded(text, source, 1))


def clean(text: str) -> str:
    """`text` with U+FFFD for every half of a surrogate pair; whole pairs are joined."""
    if text.isascii() or not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@contextmanager
def writing(path: Path) -> Iterator[IO[str]]:
    """A text file that gets its name, whole, when the block ends; if it fails, nothing changes. Raises OSError."""
    with writing_bytes(path) as raw:
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="lavic.files", newline="\n", write_through=True)
        try:
            yield stream
        finally:
            stream.detach()  # flushes; `raw` is still to be synced


@contextmanager
def writing_bytes(path: Path) -> Iterator[BinaryIO]:
    """As `writing`, for bytes. What is no plain file (a pipe, /dev/null) is written as it is."""
    final = Path(os.path.realpath(path))  # a link stays one
    if final.exists() and not final.is_file():
        with final.open("wb") as stream:
            yield stream
        return
    beside = final.with_name(f".{final.name[:60]}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(final)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()  # gives a full disk its room back
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(final)  # a full disk does not say of which file
        raise
    sync_folder(final.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file. Raises OSError."""
    with writing(path) as stream:
        stream.write(text)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes a rename in it survive a power cut."""
    with suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replacement(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "\ufffd".encode() * (error.end - error.start), error.end


codecs.register_error("lavic.files", _replacement)


class _Transcoded(io.RawIOBase):
    """A binary stream of UTF-16 or UTF-32 as one of UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._text = io.TextIOWrapper(stream, encoding=encoding, errors="surrogatepass", newline="")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._text.read(len(buffer) // 4).encode("utf-8", "surrogatepass")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._text.close()
        super().close()


def open_utf8(source: Path | BinaryIO) -> io.BufferedReader:
    """A file's bytes as UTF-8, whatever its encoding, without byte order mark and compression. Raises UserError."""
    with naming_faults(source):
        if isinstance(source, Path) and not source.exists():
            raise UserError(f"The file {source} does not exist; give another path.")
        if isinstance(source, Path) and source.is_dir():
            raise UserError(f"{source} is a folder; give the path of a file.")
        raw: Any = source.open("rb") if isinstance(source, Path) else source
        stream: io.BufferedReader = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)
        if stream.peek(2)[:2] == b"\x1f\x8b":
            stream = io.BufferedReader(gzip.GzipFile(fileobj=stream))
        head = stream.peek(16)[:16]
        for magic, what in ARCHIVES.items():
            if head.startswith(magic):
                raise UserError(f"{_name(source)} is {what}, not text; unpack it, or save it as UTF-8.")
        if head.startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
            return stream
        encoding = json.detect_encoding(head[:4])
        return stream if encoding == "utf-8" else io.BufferedReader(_Transcoded(stream, encoding))


def decoded(text: str, source: Path | BinaryIO, line: int) -> str:
    """What `surrogateescape` left of a file's bytes as clean text; `line` is where it begins. Raises UserError."""
    if text.isascii() or not _HALF.search(text):
        return text
    try:
        return clean(text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
        raise UserError(f"Line {line} of {_name(source)} is not UTF-8 text; save the file as UTF-8.") from None


@contextmanager
def naming_faults(source: Path | BinaryIO) -> Iterator[None]:
    """The system's and the decoders' errors as UserErrors that name the file."""
    try:
        yield
    except UnicodeError:
        raise UserError(f"{_name(source)} is not text in UTF-8 or UTF-16; save it as UTF-8.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{_name(source)} is a gzip file that is cut or damaged; fetch or pack it again.") from None
    except OSError as error:
        raise UserError(f"{_name(source)} cannot be read: {error.strerror or error}.") from None


def _name(source: Path | BinaryIO) -> str:
    return str(source) if isinstance(source, Path) else "standard input"
