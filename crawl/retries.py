"""From URL to accepted image: tries, backoff, Retry-After, and the bounds on what is under way."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from crawl.fetch import Body, FetchError, Kind, Transport
from crawl.headers import Validators
from crawl.hosts import HostGate, HostRules
from crawl.verify import BrokenImageError

LONGEST_BACKOFF = 30.0  # seconds
MOST_THROTTLED = 30  # answers 429 to one URL that are not counted as tries: they say nothing about the URL
MOST_GATES = 4096  # hosts remembered at once
CLOCK_MARGIN = 0.01  # seconds added to Retry-After, so that the other side's clock sees it pass too

Accepted = TypeVar("Accepted")


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often and how soon one URL is asked again."""

    tries: int  # requests, the first one included
    backoff: float  # seconds before the second try, doubled for each further one
    retry_after_cap: float  # seconds that a Retry-After is honoured at most


@dataclass(slots=True)
class Obtained(Generic[Accepted]):
    """What `accept` made of the body, how it was come by, and what the host knows it by."""

    value: Accepted
    status: int
    tries: int
    validators: Validators


class GaveUpError(Exception):
    """No image, after all the tries that its last failure deserved."""

    def __init__(self, reason: str, kind: Kind, status: int | None, tries: int) -> None:
        super().__init__(reason)
        self.reason, self.kind, self.status, self.tries = reason, kind, status, tries


class Retries:
    """Asks a transport within the bounds of every host and of the whole crawl, until a body is accepted."""

    def __init__(self, transport: Transport, in_flight: int, hosts: HostRules, rules: RetryRules) -> None:
        self._transport = transport
        self._host_rules = hosts
        self._rules = rules
        self._slots = asyncio.Semaphore(in_flight)
        # Bodies that wait to be decoded hold memory: when there are as many as slots, the network waits.
        self._undecoded = asyncio.Semaphore(in_flight)
        self._gates: dict[str, HostGate] = {}

    async def get(
        self, url: str, accept: Callable[[Body], Awaitable[Accepted]], known: Validators
    ) -> Obtained[Accepted]:
        """Fetch `url`, unless it is as `known`, and pass the answer to `accept`, which may raise BrokenImageError to
        have it fetched again. Raises GaveUpError."""
        gate = self._gate(url)
        tries = counted = throttled = 0
        broken_before: bytes | None = None
        while True:
            failure: FetchError
            tries += 1
            try:
                body = await self._request(url, gate, known)
            except FetchError as error:
                failure = error
            else:
                try:
                    return Obtained(await accept(body), body.status, tries, body.validators)
                except BrokenImageError as error:
                    # The same bytes twice: that is what the host has, not an accident on the way.
                    digest = hashlib.sha256(body.data).digest()
                    same = digest == broken_before
                    broken_before = digest
                    failure = FetchError(str(error), Kind.PERMANENT if same else Kind.TRANSIENT, body.status)
                finally:
                    self._undecoded.release()
            if failure.status == 429 and throttled < MOST_THROTTLED:
                throttled += 1
            elif not (failure.unreachable and gate.down and not gate.given_up):
                counted += 1
            if failure.kind is not Kind.TRANSIENT or counted >= self._rules.tries or gate.given_up:
                kind = self._final_kind(failure, broken_before)
                raise GaveUpError(failure.reason, kind, failure.status, tries)
            if not gate.down:
                await _sleep(self._delay(failure, counted))

    @staticmethod
    def _final_kind(failure: FetchError, broken_before: bytes | None) -> Kind:
        # A host that keeps sending bodies which are no images has none: not worth another run by default.
        whole_but_broken = broken_before is not None and (failure.status or 0) // 100 == 2
        return Kind.PERMANENT if whole_but_broken else failure.kind

    def _delay(self, failure: FetchError, counted: int) -> float:
        if failure.retry_after is not None:
            return min(failure.retry_after, self._rules.retry_after_cap) + CLOCK_MARGIN
        backoff = min(LONGEST_BACKOFF, self._rules.backoff * 2.0 ** max(0, counted - 1))
        return backoff * random.uniform(0.5, 1.0)

    async def _request(self, url: str, gate: HostGate, known: Validators) -> Body:
        """One request. When it returns, one place in `_undecoded` is taken."""
        loop = asyncio.get_running_loop()
        async with gate, self._slots:
            if gate.given_up:
                raise FetchError("the host cannot be reached", Kind.TRANSIENT)
            started = loop.time()
            try:
                body = await self._transport.get(url, known)
            except FetchError as error:
                if error.unreachable:
                    gate.unreachable(started)
                elif error.status in {429, 503}:
                    wait = error.retry_after
                    capped = None if wait is None else min(wait, self._rules.retry_after_cap)
                    gate.refused(error.status, started, capped)
                elif error.status is not None:
                    gate.answered()
                raise
            gate.answered()
            await self._undecoded.acquire()
            return body

    def _gate(self, url: str) -> HostGate:
        host = url.lower().split("/", 3)[2] if url.count("/") > 1 else ""
        gate = self._gates.get(host)
        if gate is None:
            if len(self._gates) >= MOST_GATES:
                self._gates = {name: kept for name, kept in self._gates.items() if not kept.idle}
            gate = self._gates[host] = HostGate(self._host_rules)
        return gate


async def _sleep(seconds: float) -> None:
    """Sleep, never waking before the time by the loop's clock."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0:
        await asyncio.sleep(left)
