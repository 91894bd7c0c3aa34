"""How much one host is asked: a window of requests in flight, a rate, and pauses when it asks for them."""

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from types import TracebackType

OFTEN = 0.2  # the share of recent answers that say 503 from which on the host is overloaded, not unlucky
MEMORY = 0.95  # weight of the past in that share: about the last twenty answers
DOWN_AFTER = 8  # connections failed in a row after which the host is taken for down
LONGEST_PAUSE = 15.0  # seconds between two looks at a host that is down


@dataclass(frozen=True, slots=True)
class HostRules:
    """How one host may be asked."""

    in_flight: int  # requests at once
    rate: float  # requests a second, 0 for no limit
    patience: float  # seconds for which a host may be down before its images are given up


class HostGate:
    """Admits requests to one host, first come, first served. Used as `async with gate:` around each request.

    The window follows additive increase, multiplicative decrease: it is halved when the host says 429, or 503
    often, once a round trip, and grows by about two a window of good answers. A 429 speaks of the client, so
    its Retry-After holds the whole host back; a 503 speaks of one URL until 503s are frequent.
    A host that cannot be reached gets one request at a time, at growing intervals, until it answers again.
    """

    def __init__(self, rules: HostRules) -> None:
        self._rules = rules
        self._window = float(rules.in_flight)
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._next_start = 0.0  # loop time before which no request starts
        self._timer: asyncio.TimerHandle | None = None
        self._last_cut = 0.0
        self._overload = 0.0
        self._failed_in_a_row = 0
        self._down_since: float | None = None
        self._last_look = self._next_pause = 0.0

    @property
    def window(self) -> int:
        """Requests that may be in flight now."""
        return 1 if self._down_since is not None else max(1, int(self._window))

    @property
    def given_up(self) -> bool:
        """Whether the host has been down for longer than the rules' patience."""
        return self._down_since is not None and self._loop.time() - self._down_since > self._rules.patience

    @property
    def down(self) -> bool:
        """Whether the host cannot be reached at the moment."""
        return self._down_since is not None

    async def __aenter__(self) -> None:
        if self._waiting or not self._open():
            turn = self._loop.create_future()
            self._waiting.append(turn)
            self._admit()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                raise
        else:
            self._enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def idle(self) -> bool:
        """Whether forgetting this gate would lose nothing."""
        busy = self._in_flight or self._waiting or self._loop.time() < self._next_start
        return not busy and self._down_since is None and self._window >= self._rules.in_flight

    def answered(self) -> None:
        """The host answered, and not that it is asked too much: widen the window."""
        self._reached()
        self._overload *= MEMORY
        self._window = min(float(self._rules.in_flight), self._window + 2 / self._window)

    def refused(self, status: int, started: float, wait: float | None) -> None:
        """The host said 429 or 503 to a request that started at loop time `started`.

        `wait`: seconds of its Retry-After, if it sent one.
        """
        self._reached()
        self._overload = MEMORY * self._overload + (1 - MEMORY)
        if status == 429 or self._overload > OFTEN:
            # Requests that left before the last cut say nothing about the window since.
            if started >= self._last_cut:
                self._window = max(1.0, self._window / 2)
                self._last_cut = self._loop.time()
            self.pause(wait if wait is not None else 1.0)

    def unreachable(self, started: float) -> None:
        """A connection, asked for at loop time `started`, could not be made or broke before an answer came."""
        now = self._loop.time()
        self._failed_in_a_row += 1
        if self._down_since is None:
            if self._failed_in_a_row < DOWN_AFTER:
                return
            self._down_since = now
            self._next_pause = 0.5
        elif started < self._last_look:
            return  # it left while the host was still taken for up: no news
        self._last_look = now
        self.pause(min(self._next_pause, LONGEST_PAUSE, self._rules.patience / 4) * random.uniform(0.5, 1.0))
        self._next_pause *= 2

    def pause(self, seconds: float) -> None:
        """Start no request for `seconds`."""
        self._next_start = max(self._next_start, self._loop.time() + seconds)

    def _reached(self) -> None:
        self._failed_in_a_row = 0
        self._down_since = None

    def _open(self) -> bool:
        return self._in_flight < self.window and self._loop.time() >= self._next_start

    def _enter(self) -> None:
        self._in_flight += 1
        if self._rules.rate:
            self._next_start = max(self._next_start, self._loop.time()) + 1 / self._rules.rate

    def _leave(self) -> None:
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._open():
            turn = self._waiting.popleft()
            if not turn.done():
                self._enter()
                turn.set_result(None)
        if self._waiting and self._in_flight < self.window:
            self._timer = self._loop.call_at(self._next_start, self._admit)
