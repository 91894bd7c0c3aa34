"""The crawl's end of the processes that verify images (`worker.py`).

Threads would do the same work, but each would need the interpreter's lock several times an image while the event
loop holds it: measured on two cores, one of them stood idle.
"""

import asyncio
import marshal
import mmap
import os
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crawl.errors import StorageError, UserError
from crawl.store import FileError, Written
from crawl.verify import BrokenImageError, ImageRules
from crawl.worker import ANSWER, REQUEST, SLOT, main

ERRORS: dict[str, type[Exception]] = {"broken": BrokenImageError, "file": FileError, "storage": StorageError}

_Arguments = tuple[str, tuple[int, int, int], int]  # of the worker's `main`

START = "import sys; sys.path.insert(0, {root!r}); from crawl.worker import main; main(*{arguments!r})"


@dataclass(slots=True)
class Checked:
    """A verified image's sides in pixels, and its files: still under temporary names, or adopted as they are."""

    width: int
    height: int
    files: list[Written]


class Verifiers:
    """The processes, each with its queue of requests. Made outside the event loop, and opened in it."""

    def __init__(self, journal: Path, rules: ImageRules, processes: int, slots: int) -> None:
        """Start them.

        `slots`: bodies that wait in shared memory at most; more, and long ones, are sent.

        Raises UserError.
        """
        descriptor, self._shared = -1, None
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("crawl")
            os.truncate(descriptor, slots * SLOT)
            self._shared = mmap.mmap(descriptor, slots * SLOT)
        self._free = list(range(slots))  # the one given back last is taken first: it is in the cache
        arguments = (str(journal), (rules.max_pixels, rules.max_side, rules.quality), descriptor)
        self._processes: list[_Process] = []
        try:
            for _ in range(processes):
                self._processes.append(_Process(arguments, self._free))
        except OSError as error:
            self.end()
            raise UserError(
                f"No process can be started to verify images: {error.strerror}. Try --decode-processes 1."
            ) from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    async def open(self) -> None:
        """Connect to the event loop that the rest is called in."""
        for process in self._processes:
            await process.open()

    async def close(self) -> None:
        """Disconnect from the event loop."""
        for process in self._processes:
            await process.close()

    def end(self) -> None:
        """End the processes, opened or not, and wait for that."""
        for process in self._processes:
            process.end()

    def write(self, body: bytes, targets: list[tuple[int, str]]) -> "asyncio.Future[Checked]":
        """Verify a body and write it beside each (file id, path). Raises as `Store.write` does."""
        if self._shared is not None and len(body) <= SLOT and self._free:
            slot = self._free.pop()
            self._shared[slot * SLOT : slot * SLOT + len(body)] = body
            return self._ask(("write", slot, len(body), targets), slot)
        return self._ask(("write", -1, len(body), targets), body=body)

    def adopt(self, file_id: int, path: str, expected: bytes | None) -> "asyncio.Future[Checked]":
        """Verify a file that is already there. Raises as `Store.adopt` does."""
        return self._ask(("adopt", file_id, path, expected))

    def copy(self, path: str, targets: list[tuple[int, str]]) -> "asyncio.Future[Checked]":
        """Write a file that is there under other names too. Raises as `Store.write` does."""
        return self._ask(("copy", path, targets))

    def _ask(self, request: tuple[Any, ...], slot: int = -1, body: bytes = b"") -> "asyncio.Future[Checked]":
        return min(self._processes, key=_queue_length).ask(request, slot, body)


class _Process:
    """One process and the requests that it has not answered yet."""

    def __init__(self, arguments: _Arguments, free: list[int]) -> None:
        self._free = free
        self.waiting: dict[int, tuple[asyncio.Future[Checked], int]] = {}
        self._number = 0
        self._unsent: list[bytes] = []
        self._socket, other = socket.socketpair()
        self._child: subprocess.Popen[bytes] | int
        with other:
            # A copy of this process has all modules loaded, but can only be made while no thread holds a lock.
            if sys.platform == "linux" and threading.active_count() == 1:
                self._child = os.fork()
                if not self._child:
                    self._be_worker(arguments, other)
            else:
                self._child = self._run_worker(arguments, other)

    def _be_worker(self, arguments: _Arguments, other: socket.socket) -> None:
        try:
            os.setsid()  # Ctrl-C is for the crawl alone: what has arrived is still verified
            self._socket.close()
            main(*arguments, other.fileno(), other.fileno())
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)

    @staticmethod
    def _run_worker(arguments: _Arguments, other: socket.socket) -> "subprocess.Popen[bytes]":
        code = START.format(root=str(Path(__file__).parent.parent), arguments=arguments)
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=other.fileno(), stdout=other.fileno(),
            start_new_session=True, pass_fds=[arguments[-1]] if arguments[-1] >= 0 else [],
        )  # fmt: skip

    async def open(self) -> None:
        """Connect to the event loop."""
        self._loop = asyncio.get_running_loop()
        self._from, self._to = await asyncio.open_connection(sock=self._socket)
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Disconnect."""
        self._reading.cancel()
        self._shut()
        self._to.close()
        with suppress(OSError):
            await self._to.wait_closed()

    def end(self) -> None:
        """Close its input, which ends it, and wait for that."""
        self._shut()
        self._socket.close()
        if isinstance(self._child, int):
            os.waitpid(self._child, 0)
        else:
            self._child.wait()

    def _shut(self) -> None:
        with suppress(OSError):  # closed already
            self._socket.shutdown(socket.SHUT_RDWR)  # closing alone would not do: later copies hold the socket too

    def ask(self, request: tuple[Any, ...], slot: int, body: bytes) -> "asyncio.Future[Checked]":
        """Send a request; the answer frees its slot."""
        future: asyncio.Future[Checked] = self._loop.create_future()
        if self._reading.done():
            future.set_exception(_gone())
            return future
        self._number += 1
        self.waiting[self._number] = future, slot
        head = marshal.dumps((self._number, *request))
        # Requests of one turn of the loop go together: each sending may wake the other side, and wait for it.
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent += (REQUEST.pack(len(head), len(body)), head, body)
        return future

    def _send(self) -> None:
        self._to.write(b"".join(self._unsent))
        self._unsent.clear()

    async def _read(self) -> None:
        data = b""
        with suppress(ConnectionError):
            while more := await self._from.read(1 << 16):
                data += more
                at = 0
                while len(data) >= at + ANSWER.size:
                    end = at + ANSWER.size + ANSWER.unpack_from(data, at)[0]
                    if len(data) < end:
                        break
                    self._deliver(marshal.loads(data[at + ANSWER.size : end]))
                    at = end
                data = data[at:]
        for future, _ in self.waiting.values():
            if not future.done():
                future.set_exception(_gone())

    def _deliver(self, answer: tuple[Any, ...]) -> None:
        future, slot = self.waiting.pop(answer[0])
        if slot >= 0:
            self._free.append(slot)
        if future.done():  # its caller was cancelled
            return
        if answer[1] == "done":
            _, _, width, height, files = answer
            future.set_result(Checked(width, height, [Written(*file) for file in files]))
        else:
            future.set_exception(ERRORS.get(answer[1], RuntimeError)(answer[2]))


def _queue_length(process: _Process) -> int:
    return len(process.waiting)


def _gone() -> StorageError:
    return StorageError("A process that verifies images has ended: was it killed, for want of memory perhaps?")
