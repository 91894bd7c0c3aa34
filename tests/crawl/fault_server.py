"""A socket server on the loopback that answers every path by a script of well and ill behaved replies."""

import asyncio
import email.utils
import gzip
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

Reply = Callable[[asyncio.StreamWriter], Awaitable[bool]]  # False closes the connection


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(status: int = 200, body: bytes = b"", content_type: str = "image/jpeg", **headers: str) -> Reply:
    """A whole answer; `headers` with underscores for hyphens."""
    fields = {"Content-Type": content_type, "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}

    async def reply(writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(status, fields) + body)
        await writer.drain()
        return True

    return reply


def unavailable(status: int, retry_after: float, as_date: bool = False) -> Reply:
    """A refusal with a Retry-After in seconds, or as a date."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        now = time.time()
        date = email.utils.formatdate(now, usegmt=True)
        until = email.utils.formatdate(now + retry_after, usegmt=True) if as_date else str(retry_after)
        writer.write(_head(status, {"Retry-After": until, "Date": date, "Content-Length": "0"}))
        return True

    return reply


def short_by_length(body: bytes) -> Reply:
    """Fewer bytes than Content-Length says, then the end of the connection."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {"Content-Length": str(len(body))}) + body[: len(body) // 2])
        await writer.drain()
        return False

    return reply


def short_by_chunk(body: bytes) -> Reply:
    """Chunked, and the connection ends within a chunk."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {"Transfer-Encoding": "chunked"}))
        writer.write(f"{len(body):x}\r\n".encode() + body[: len(body) // 2])
        await writer.drain()
        return False

    return reply


def chunked(body: bytes, size: int = 700) -> Reply:
    """A whole chunked answer."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {"Transfer-Encoding": "chunked"}))
        for start in range(0, len(body), size):
            part = body[start : start + size]
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        writer.write(b"0\r\n\r\n")
        return True

    return reply


def gzipped(body: bytes, cut: int = 0) -> Reply:
    """A gzip answer that nobody asked for; `cut` leaves its last bytes out."""
    packed = gzip.compress(body)
    return answer(body=packed[: len(packed) - cut], Content_Encoding="gzip")


def until_close(body: bytes) -> Reply:
    """A body without any length, that ends where the connection ends."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {"Connection": "close"}) + body)
        await writer.drain()
        return False

    return reply


def drip(body: bytes, seconds: float) -> Reply:
    """A few bytes every `seconds`."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {"Content-Length": str(len(body))}))
        for start in range(0, len(body), 8):
            writer.write(body[start : start + 8])
            await writer.drain()
            await asyncio.sleep(seconds)
        return True

    return reply


def silence(seconds: float = 30.0) -> Reply:
    """No answer at all."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(seconds)
        return False

    return reply


def endless() -> Reply:
    """A chunked body that never ends."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        writer.write(_head(200, {"Transfer-Encoding": "chunked"}))
        while True:
            writer.write(b"10000\r\n" + b"\xff" * 0x10000 + b"\r\n")
            await writer.drain()

    return reply


def redirect(to: str, status: int = 302) -> Reply:
    """To `to`, a URL or a path."""
    return answer(status, b"moved", "text/html", Location=to)


def reset() -> Reply:
    """The connection is torn down (RST) without an answer."""

    async def reply(writer: asyncio.StreamWriter) -> bool:
        plug: socket.socket = writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False

    return reply


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, and when (seconds of `time.monotonic`); header names in lower case."""

    time: float
    path: str
    headers: dict[str, str]


_asked: ContextVar[Request] = ContextVar("asked")  # each connection's task has its own


def conditional(body: bytes, etag: str = "", last_modified: str = "") -> Reply:
    """As a server of files answers: 304 to whom has this ETag, or without one this date; all of it to others."""
    validators = {name: value for name, value in {"ETag": etag, "Last_Modified": last_modified}.items() if value}

    async def reply(writer: asyncio.StreamWriter) -> bool:
        headers = _asked.get().headers
        same = headers["if-none-match"] == etag if "if-none-match" in headers else (
            bool(last_modified) and headers.get("if-modified-since") == last_modified)  # fmt: skip
        if same:
            writer.write(_head(304, {name.replace("_", "-"): value for name, value in validators.items()}))
            return True
        return await answer(200, body, "image/jpeg", **validators)(writer)

    return reply


class FaultServer:
    """Runs in a thread of its own, as `with FaultServer() as server:`."""

    def __init__(self, port: int = 0, latency: float = 0.0) -> None:
        """`latency`: seconds before each answer."""
        self.port = port
        self.latency = latency
        self.requests: list[Request] = []
        self.busy = self.most_busy = 0  # requests that are being answered
        self.answer_all: Callable[[str], Reply | None] | None = None  # asked before the scripts
        self._scripts: dict[str, list[Reply]] = {}
        self._asked: dict[str, int] = defaultdict(int)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def script(self, path: str, *replies: Reply) -> str:
        """Answer the n-th request for `path` by the n-th reply, and by the last one from then on.

        Returns the URL.
        """
        self._scripts[path] = list(replies)
        return self.url(path)

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def asked(self, path: str) -> int:
        """How often a path was asked for."""
        return self._asked[path]

    def __enter__(self) -> "FaultServer":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", self.port))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                lines = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
                request = Request(time.monotonic(), path, {name.lower(): value for name, _, value in lines if name})
                _asked.set(request)
                self.requests.append(request)
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
                try:
                    if self.latency:
                        await asyncio.sleep(self.latency)
                    if not await self._reply(path)(writer):
                        break
                finally:
                    self.busy -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _reply(self, path: str) -> Reply:
        count = self._asked[path]
        self._asked[path] += 1
        if self.answer_all is not None and (reply := self.answer_all(path)) is not None:
            return reply
        script = self._scripts.get(path)
        return answer(404) if script is None else script[min(count, len(script) - 1)]
