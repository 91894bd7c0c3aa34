"""One request by http.client, for answers that aiohttp's parser refuses and that browsers and curl take.

Among them: Transfer-Encoding beside Content-Length, Content-Length twice, white space before a colon. It blocks, and so
runs in a thread; it is asked only after aiohttp has given up on an answer, and connects only to an address that was
checked.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from multidict import CIMultiDict
from yarl import URL

PART = 1 << 16  # bytes read at a time


class ShortBody(OSError):
    """The connection closed before the body's end."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds until the connection stands, without a byte, and in all."""

    connect: float
    silence: float
    total: float


class _Connection(http.client.HTTPConnection):
    def __init__(self, url: URL, address: str, timeouts: Timeouts) -> None:
        super().__init__(url.host or "", url.port, timeout=timeouts.connect)
        self._address, self._silence, self._encrypted = address, timeouts.silence, url.scheme == "https"

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._encrypted:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
        self.sock.settimeout(self._silence)


def ask(
    url: URL,
    address: str,
    headers: dict[str, str],
    timeouts: Timeouts,
    accept: Callable[[int, CIMultiDict[str]], Callable[[bytes], None] | None],
) -> None:
    """GET `url` from `address`. `accept` takes status and headers, and returns what takes the body's parts, or None.

    Raises OSError (ShortBody, TimeoutError among them), http.client.HTTPException, and whatever `accept` raises.
    """
    until = time.monotonic() + timeouts.total
    connection = _Connection(url, address, timeouts)
    try:
        connection.request("GET", url.raw_path_qs, headers={**headers, "Connection": "close"})
        answer = connection.getresponse()
        taker = accept(answer.status, CIMultiDict(answer.getheaders()))
        while taker is not None:
            if time.monotonic() > until:
                raise TimeoutError("the time limit is spent")
            part = answer.read1(PART)
            if not part:
                break
            taker(part)
        if taker is not None and answer.length:
            raise ShortBody
    finally:
        connection.close()
