"""One request, from URL to whole body or to the reason why not. Retrying is the caller's (`retries.py`)."""

import email.utils
import socket
import time
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import aiohttp

from crawl.safety import AllowedHosts, PublicResolver, RefusedError, check_url, parse_url

MOST_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}


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
    """A whole body, decompressed, and the status that it came with."""

    data: bytes
    status: int


class Transport(Protocol):
    """What the crawl asks for bodies: `Fetcher`, or a stub in tests and benchmarks."""

    async def get(self, url: str) -> Body:
        """The body of `url`; raises FetchError."""

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
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # the host gates bound the number in flight
                resolver=PublicResolver(allowed),
                ttl_dns_cache=300,
                keepalive_timeout=30,
            ),
            timeout=aiohttp.ClientTimeout(
                total=rules.total_timeout,
                sock_connect=rules.connect_timeout,
                sock_read=rules.silence_timeout,
            ),
            headers={
                "User-Agent": rules.user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # done below, under the cap on bytes
            trust_env=False,  # a proxy would look the names up itself, behind the checks' back
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()

    async def get(self, url: str) -> Body:
        """The body of `url`, through at most five redirects. Raises FetchError."""
        try:
            return await self._follow(url)
        except RefusedError as error:
            raise FetchError(str(error), Kind.REFUSED) from error
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, RefusedError):
                raise FetchError(str(error.os_error), Kind.REFUSED) from error
            raise FetchError("the host's name has no address", Kind.TRANSIENT, unreachable=True) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise FetchError("the TLS certificate is not valid", Kind.PERMANENT) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise FetchError("no connection in time", Kind.TRANSIENT, unreachable=True) from error
        except aiohttp.ServerTimeoutError as error:
            raise FetchError("the host fell silent", Kind.TRANSIENT) from error
        except TimeoutError as error:
            raise FetchError("the time limit is spent", Kind.PERMANENT) from error
        except aiohttp.ClientPayloadError as error:
            raise FetchError("the body is short", Kind.TRANSIENT) from error
        except (aiohttp.ClientConnectionError, socket.gaierror, ConnectionError) as error:
            raise FetchError("the connection failed or broke", Kind.TRANSIENT, unreachable=True) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise FetchError(f"not a URL that can be asked: {error}", Kind.REFUSED) from error
        except aiohttp.ClientResponseError as error:
            raise FetchError("the answer is not HTTP", Kind.TRANSIENT) from error

    async def _follow(self, text: str) -> Body:
        url = check_url(text, self._allowed)
        for _ in range(MOST_REDIRECTS + 1):
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status not in REDIRECTS:
                    return await self._read(answer)
                try:
                    target = url.join(parse_url(answer.headers.get("Location", "")))
                except ValueError as error:
                    raise FetchError("the redirect names no URL", Kind.PERMANENT, answer.status) from error
                status = answer.status
            try:
                url = check_url(str(target), self._allowed)
            except RefusedError as error:
                raise FetchError(f"redirected to what is refused: {error}", Kind.REFUSED, status) from error
        raise FetchError(f"over {MOST_REDIRECTS} redirects", Kind.PERMANENT, status)

    async def _read(self, answer: aiohttp.ClientResponse) -> Body:
        status, cap = answer.status, self._rules.max_bytes
        if status != 200:
            transient = status in {408, 425, 429} or status >= 500
            raise FetchError(
                f"HTTP status {status}",
                Kind.TRANSIENT if transient else Kind.PERMANENT,
                status,
                retry_after_seconds(answer.headers.get("Retry-After"), answer.headers.get("Date")),
            )
        if not self._rules.ignore_robots_tag and forbids_training(
            answer.headers.getall("X-Robots-Tag", []), self._rules.user_agent
        ):
            raise FetchError("X-Robots-Tag forbids its use for AI", Kind.REFUSED, status)
        if answer.content_length is not None and answer.content_length > cap:
            raise FetchError(f"over the cap of {cap} bytes", Kind.PERMANENT, status)
        inflate = _Inflater(answer.headers.get("Content-Encoding", ""), cap)
        parts: list[bytes] = []
        size = 0
        while part := await answer.content.readany():
            part = inflate(part)
            size += len(part)
            if size > cap:
                answer.close()
                raise FetchError(f"over the cap of {cap} bytes", Kind.PERMANENT, status)
            parts.append(part)
        inflate.finish()
        return Body(parts[0] if len(parts) == 1 else b"".join(parts), status)


class _Inflater:
    """Undoes gzip and deflate, never giving more than a little over `cap` bytes for one part."""

    def __init__(self, encoding: str, cap: int) -> None:
        name = encoding.strip().lower()
        if name not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise FetchError(f"the body has an encoding not asked for: {name[:20]}", Kind.PERMANENT, 200)
        self._cap = cap
        # 32: gzip's or zlib's header, whichever there is.
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32) if name not in {"", "identity"} else None

    def __call__(self, part: bytes) -> bytes:
        if self._stream is None:
            return part
        try:
            return self._stream.decompress(part, self._cap + 1)
        except zlib.error as error:
            raise FetchError("the compressed body is damaged", Kind.TRANSIENT, 200) from error

    def finish(self) -> None:
        """Raises FetchError if the compressed stream has not ended."""
        if self._stream is not None and not self._stream.eof:
            raise FetchError("the body is short", Kind.TRANSIENT, 200)


def retry_after_seconds(value: str | None, date: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date (then against the answer's own Date,
    so that a wrong clock on either side does no harm). None if there is none that can be read."""
    if not value:
        return None
    try:
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(value).timestamp()
        now = email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, until - now)


def forbids_training(headers: list[str], user_agent: str) -> bool:
    """Whether an X-Robots-Tag says `noai` or `noimageai` to everybody or to this agent's name."""
    name = user_agent.split("/")[0].strip().lower()
    for header in headers:
        agent, colon, rules = header.lower().partition(":")
        if not colon or "," in agent or agent.strip() == "unavailable_after":
            rules = header.lower()
        elif agent.strip() not in {name, "*"}:
            continue
        if {"noai", "noimageai"} & {rule.strip() for rule in rules.split(",")}:
            return True
    return False
