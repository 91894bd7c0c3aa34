"""One request, from URL to whole body or to the reason why not. Retrying is the caller's (`retries.py`)."""

import asyncio
import http.client
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from crawl import lenient
from crawl.compression import CompressionError, Inflater, ShortError
from crawl.headers import (
    Headers,
    Validators,
    as_written,
    forbids_training,
    promises_a_whole_body,
    retry_after_seconds,
    validators_of,
)
from crawl.safety import AllowedHosts, PublicResolver, RefusedError, check_url, parse_url

NOT_MODIFIED = 304
MOST_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
LONGEST_HEADER = 1 << 16  # bytes of one line: some sites send policies of 10 KB and more
MOST_HEADERS = 1000


class Kind(StrEnum):
    """What a failure means for the next try."""

    TRANSIENT = "transient"  # worth another try
    PERMANENT = "permanent"  # another try would give the same
    REFUSED = "refused"  # the crawler's own rules forbid it


class FetchError(Exception):
    """A request without a whole body."""

    def __init__(
        self,
        reason: str,
        kind: Kind,
        status: int | None = None,
        retry_after: float | None = None,
        unreachable: bool = False,
    ) -> None:
        """`retry_after`: seconds; `unreachable`: the host gave no answer at all."""
        super().__init__(reason)
        self.reason, self.kind, self.status = reason, kind, status
        self.retry_after, self.unreachable = retry_after, unreachable


@dataclass(slots=True)
class Body:
    """A whole body, decompressed, and the status that it came with; empty with 304, which says that it is as before."""

    data: bytes
    status: int
    validators: Validators = field(default_factory=Validators)


class Transport(Protocol):
    """What the crawl asks for bodies: `Fetcher`, or a stub in tests and benchmarks."""

    async def get(self, url: str, known: Validators) -> Body:
        """The body of `url`, or 304 if it still is what `known` was sent with; raises FetchError."""

    async def close(self) -> None:
        """Give the connections back."""


@dataclass(frozen=True, slots=True)
class FetchRules:
    """Caps and timeouts of one request."""

    connect_timeout: float  # seconds until the connection stands
    silence_timeout: float  # seconds without a byte
    total_timeout: float  # seconds for one try in all
    max_bytes: int  # of a body, compressed or not
    user_agent: str
    ignore_robots_tag: bool


class Fetcher:
    """GETs over one aiohttp session: connections are reused, every redirect and address is checked first."""

    def __init__(self, rules: FetchRules, allowed: AllowedHosts) -> None:
        self._rules = rules
        self._allowed = allowed
        self._resolver = PublicResolver(allowed)
        self._headers = {
            "User-Agent": rules.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        }
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # the host gates bound the number in flight
                resolver=self._resolver,
                ttl_dns_cache=300,
                keepalive_timeout=30,
            ),
            timeout=aiohttp.ClientTimeout(
                total=rules.total_timeout,
                sock_connect=rules.connect_timeout,
                sock_read=rules.silence_timeout,
            ),
            headers=self._headers,
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
            max_headers=MOST_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # done below, under the cap on bytes
            trust_env=False,  # a proxy would look the names up itself, behind the checks' back
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()

    async def get(self, url: str, known: Validators) -> Body:
        """The body of `url`, through at most five redirects, or 304 for what is `known`. Raises FetchError."""
        try:
            return await self._follow(url, known)
        except RefusedError as error:
            raise FetchError(str(error), Kind.REFUSED) from error
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, RefusedError):
                raise FetchError(str(error.os_error), Kind.REFUSED) from error
            raise FetchError("the host's name has no address", Kind.TRANSIENT, unreachable=True) from error
        except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as error:
            raise FetchError("the TLS certificate is not valid", Kind.PERMANENT) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise FetchError("no connection in time", Kind.TRANSIENT, unreachable=True) from error
        except (aiohttp.ServerTimeoutError, _SilenceError) as error:
            raise FetchError("the host fell silent", Kind.TRANSIENT) from error
        except TimeoutError as error:
            raise FetchError("the time limit is spent", Kind.PERMANENT) from error
        except (aiohttp.ClientPayloadError, lenient.ShortBody, http.client.IncompleteRead) as error:
            raise FetchError("the body is short", Kind.TRANSIENT) from error
        except (aiohttp.ClientConnectionError, socket.gaierror, ConnectionError) as error:
            raise FetchError("the connection failed or broke", Kind.TRANSIENT, unreachable=True) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise FetchError(f"not a URL that can be asked: {error}", Kind.REFUSED) from error
        except http.client.HTTPException as error:
            what = " ".join(str(error).split())[:100] or type(error).__name__
            raise FetchError(f"the answer is not HTTP: {what}", Kind.TRANSIENT) from error

    async def _follow(self, text: str, known: Validators) -> Body:
        url, direct = check_url(text, self._allowed), True
        for _ in range(MOST_REDIRECTS + 1):
            # Validators are one resource's: what another redirect leads to may be older, and still another image.
            answer = await self._ask(url, known.conditions() if direct else {})
            if answer.unchanged:
                return Body(b"", NOT_MODIFIED, known)
            if answer.taken is not None:
                validators = validators_of(answer.headers) if direct else Validators()
                return Body(answer.taken.whole(), answer.status, validators)
            direct = False
            try:
                target = url.join(parse_url(as_written(answer.headers.get("Location", ""))))
            except ValueError as error:
                raise FetchError("the redirect names no URL", Kind.PERMANENT, answer.status) from error
            try:
                url = check_url(str(target), self._allowed)
            except RefusedError as error:
                raise FetchError(f"redirected to what is refused: {error}", Kind.REFUSED, answer.status) from error
        raise FetchError(f"over {MOST_REDIRECTS} redirects", Kind.PERMANENT, answer.status)

    async def _ask(self, url: URL, conditions: dict[str, str]) -> "_Answer":
        """One answer, with its body unless it redirects or says that nothing has changed."""
        try:
            async with self._session.get(url, allow_redirects=False, headers=conditions) as answer:
                found = _Answer(answer.status, answer.headers, self._rules, bool(conditions))
                if found.taken is not None:
                    while part := await answer.content.readany():
                        found.taken(part)
                return found
        except aiohttp.ClientResponseError:
            return await asyncio.to_thread(self._ask_leniently, url, await self._address(url), conditions)

    async def _address(self, url: URL) -> str:
        """An address of the URL's host that may be asked."""
        found = await self._resolver.resolve(url.host or "", url.port or 80, socket.AF_UNSPEC)
        return found[0]["host"]

    def _ask_leniently(self, url: URL, address: str, conditions: dict[str, str]) -> "_Answer":
        rules = self._rules
        answers: list[_Answer] = []

        def accept(status: int, headers: CIMultiDict[str]) -> Callable[[bytes], None] | None:
            answers.append(_Answer(status, headers, rules, bool(conditions)))
            return answers[0].taken

        timeouts = lenient.Timeouts(rules.connect_timeout, rules.silence_timeout, rules.total_timeout)
        try:
            lenient.ask(url, address, {**self._headers, **conditions}, timeouts, accept)
        except TimeoutError as error:
            raise _SilenceError from error
        return answers[0]


class _SilenceError(Exception):
    """http.client's time-out."""


class _Answer:
    """Status, headers, and what takes the body: None if it redirects, or says on condition that nothing has changed.

    Raises FetchError for what gives no body.
    """

    def __init__(self, status: int, headers: Headers, rules: FetchRules, conditional: bool) -> None:
        self.status, self.headers = status, headers
        self.unchanged = conditional and status == NOT_MODIFIED
        self.taken: _Taken | None = None
        if status in REDIRECTS or self.unchanged:
            return
        if not promises_a_whole_body(status, headers):
            transient = status in {408, 425, 429} or status >= 500
            raise FetchError(
                f"HTTP status {status}",
                Kind.TRANSIENT if transient else Kind.PERMANENT,
                status,
                retry_after_seconds(headers.get("Retry-After"), headers.get("Date")),
            )
        if not rules.ignore_robots_tag and forbids_training(headers.getall("X-Robots-Tag", []), rules.user_agent):
            raise FetchError("X-Robots-Tag forbids its use for AI", Kind.REFUSED, status)
        length = headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > rules.max_bytes:
            raise FetchError(f"over the cap of {rules.max_bytes} bytes", Kind.PERMANENT, status)
        self.taken = _Taken(headers.getall("Content-Encoding", []), rules.max_bytes, status)


class _Taken:
    """A body's parts, decompressed, up to `cap` bytes."""

    def __init__(self, encodings: list[str], cap: int, status: int) -> None:
        self._cap, self._status = cap, status
        self._inflate = Inflater(encodings, cap)
        self._parts: list[bytes] = []
        self._size = 0

    def __call__(self, part: bytes) -> None:
        """Raises FetchError for what is damaged or over the cap."""
        try:
            part = self._inflate(part)
        except CompressionError as error:
            raise FetchError(str(error), Kind.TRANSIENT, self._status) from error
        self._size += len(part)
        if self._size > self._cap:
            raise FetchError(f"over the cap of {self._cap} bytes", Kind.PERMANENT, self._status)
        self._parts.append(part)

    def whole(self) -> bytes:
        """The body. Raises FetchError if a compressed stream has not ended, or none can decompress it."""
        try:
            self._inflate.finish()
        except ShortError as error:
            raise FetchError("the body is short", Kind.TRANSIENT, self._status) from error
        except CompressionError as error:
            raise FetchError(str(error), Kind.PERMANENT, self._status) from error
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
