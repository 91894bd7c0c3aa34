"""The entries of a JSON file by where they stand: each is read when it is asked for, and none is kept.

A place is a pair of bytes of the file's UTF-8 text, as `Entry.place` says. A file that is compressed, or in another
encoding than UTF-8, has no such bytes on disk: it is written out as UTF-8 once, into the cache.
"""

import hashlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

from lavic.errors import UserError
from lavic.files import naming_faults, open_utf8, writing_bytes
from lavic.files.json_scanner import first_keys_decoder, json_text, without_halves

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes copied at a time


class PlacedEntries:
    """A JSON file, of which any entry can be read; a pickled one is only a path.

    Args:
        path: the file.
        cache_dir: an existing folder for its copy, if it needs one.

    Raises:
        UserError: the file cannot be read, or the copy not written.
    """

    def __init__(self, path: Path, cache_dir: Path) -> None:
        self.path = path
        self._text, self._begin = _utf8_file(path, cache_dir)
        self._state = _state(self._text.stat())
        self._file: io.FileIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def read(self, start: int, stop: int) -> Any:
        """The value at a place. Raises UserError where the file is not what it was."""
        if self._file is None:
            self._file = io.FileIO(self._text)
        descriptor = self._file.fileno()
        data = os.pread(descriptor, stop - start, self._begin + start)  # moves nothing that forked workers share
        if _state(os.fstat(descriptor)) != self._state:
            raise UserError(f"{self._text} has changed while it was used; start again, so that it is read anew.")
        text = json_text(data.decode("utf-8", "surrogateescape"), self.path, 1)
        return without_halves(first_keys_decoder([]).decode(text), text)


def _utf8_file(path: Path, cache_dir: Path) -> tuple[Path, int]:
    """A file with the text of `path` as UTF-8, and the byte at which it begins there."""
    with open_utf8(path) as stream:
        if isinstance(stream.raw, io.FileIO):
            return path, stream.tell()
        whole = json.dumps([str(path.resolve()), *_state(path.stat())])
        copy = cache_dir / f"text-{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"
        if not copy.is_file():
            log.info("%s is written out as UTF-8, once, to be read from any place: %s", path, copy)
            _write_out(stream, path, copy)
    return copy, 0


def _write_out(stream: io.BufferedReader, path: Path, copy: Path) -> None:
    try:
        with writing_bytes(copy) as out:
            while True:
                with naming_faults(path):
                    data = stream.read(BLOCK)
                if not data:
                    return
                out.write(data)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written out as UTF-8 to {copy.parent} ({error.strerror or error}); give another folder"
            " by data.init_args.cache_dir, or unpack it and save it as UTF-8."
        ) from None


def _state(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns
