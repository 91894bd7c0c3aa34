"""A process beside the crawl that verifies images and writes them: the other end of `verifiers.py`.

It is sent requests and answers each, one after the other. Both are frames: lengths, then a marshalled tuple, then
the body of an image unless that lies in the shared memory.
"""

import marshal
import mmap
import os
import signal
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from crawl.errors import StorageError
from crawl.store import FileError, Store, Written
from crawl.verify import BrokenImageError, ImageRules, VerifiedImage

REQUEST = struct.Struct("<II")  # bytes of the tuple, bytes of the body behind it
ANSWER = struct.Struct("<I")  # bytes of the tuple

SLOT = 256 * 1024  # bytes of shared memory for one body; longer ones come by the pipe

NICE = 5  # the event loop, on which the hosts wait, goes first where there are fewer cores than work

ERRORS: dict[type[Exception], str] = {BrokenImageError: "broken", FileError: "file", StorageError: "storage"}


class Worker:
    """Answers requests until the crawl closes its end or dies."""

    def __init__(self, store: Store, shared: mmap.mmap | None) -> None:
        self._store = store
        self._shared = memoryview(shared) if shared is not None else memoryview(b"")

    def run(self, requests: int, answers: int) -> None:
        """Serve one descriptor from the other."""
        parent = os.getppid()
        with open(requests, "rb") as stream:
            while len(lengths := stream.read(REQUEST.size)) == REQUEST.size:
                head, body = REQUEST.unpack(lengths)
                number, action, *arguments = marshal.loads(stream.read(head))
                data = stream.read(body) if body else b""
                if os.getppid() != parent:
                    return  # the crawl was killed: another may be at work on the same folders already
                try:
                    answer = (number, "done", *getattr(self, f"_{action}")(data, *arguments))
                except Exception as error:
                    answer = (number, ERRORS.get(type(error), "bug"), str(error) or repr(error))
                packed = marshal.dumps(answer)
                os.write(answers, ANSWER.pack(len(packed)) + packed)

    def _write(self, body: bytes, slot: int, length: int, targets: list[tuple[int, str]]) -> tuple[Any, ...]:
        data = self._shared[slot * SLOT : slot * SLOT + length] if slot >= 0 else body
        return _flat(*self._store.write(data, targets))

    def _adopt(self, _: bytes, file_id: int, path: str, expected: bytes | None) -> tuple[Any, ...]:
        image, written = self._store.adopt(file_id, path, expected)
        return _flat(image, [written])

    def _copy(self, _: bytes, path: str, targets: list[tuple[int, str]]) -> tuple[Any, ...]:
        return _flat(*self._store.copy(path, targets))


def _flat(image: VerifiedImage, files: list[Written]) -> tuple[Any, ...]:
    """What `marshal` can carry of a verified image."""
    rows = [(file.file_id, file.temporary, file.final, file.size, file.sha256, file.mtime_ns) for file in files]
    return image.width, image.height, rows


def main(journal: str, rules: tuple[int, int, int], shared_fd: int, requests: int = 0, answers: int = 1) -> None:
    """The process. `shared_fd`, `requests`, `answers`: descriptors; the first is -1 without shared memory."""
    if hasattr(os, "nice"):
        os.nice(NICE)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # may be sent to the whole group: the crawl closes its end
    shared = mmap.mmap(shared_fd, 0) if shared_fd >= 0 else None
    with suppress(OSError):  # the crawl has died
        Worker(Store(Path(journal), ImageRules(*rules)), shared).run(requests, answers)
