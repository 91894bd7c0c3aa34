"""How one host is asked, by the gate alone: quick, and the same on a busy machine."""

import asyncio
import time

from crawl.hosts import DOWN_AFTER, HostGate, HostRules


def test_a_429_holds_the_whole_host_back_and_halves_the_window() -> None:
    async def go() -> None:
        gate = HostGate(HostRules(in_flight=16, rate=0, patience=60))
        sent = asyncio.get_running_loop().time()
        for _ in range(16):  # all of one round trip: one cut
            gate.refused(429, sent, wait=0.3)
        assert gate.window == 8
        started = time.monotonic()
        async with gate:
            assert time.monotonic() - started >= 0.29
            gate.refused(429, asyncio.get_running_loop().time(), wait=0.0)
        assert gate.window == 4
        for _ in range(200):
            gate.answered()
        assert gate.window == 16

    asyncio.run(go())


def test_a_503_now_and_then_cuts_nothing_and_frequent_ones_do() -> None:
    async def go() -> None:
        gate = HostGate(HostRules(in_flight=16, rate=0, patience=60))
        loop = asyncio.get_running_loop()
        for number in range(400):
            if number % 20:
                gate.answered()
            else:
                gate.refused(503, loop.time(), wait=9.0)
        assert gate.window == 16
        async with asyncio.timeout(1), gate:
            pass
        for _ in range(10):
            gate.refused(503, loop.time(), wait=0.0)
        assert gate.window < 8

    asyncio.run(go())


def test_a_host_that_is_down_gets_one_request_at_a_time_until_it_answers() -> None:
    async def go() -> None:
        gate = HostGate(HostRules(in_flight=16, rate=0, patience=0.4))
        loop = asyncio.get_running_loop()
        sent = loop.time()
        for _ in range(DOWN_AFTER - 1):
            gate.unreachable(sent)
        assert not gate.down
        gate.unreachable(sent)
        assert gate.down
        assert gate.window == 1
        gate.answered()
        assert not gate.down
        assert gate.window == 16
        for _ in range(DOWN_AFTER):
            gate.unreachable(loop.time())
        await asyncio.sleep(0.5)
        assert gate.given_up

    asyncio.run(go())


def test_a_waiter_that_is_cancelled_gives_its_turn_back() -> None:
    async def go() -> None:
        gate = HostGate(HostRules(in_flight=1, rate=0, patience=60))

        async def hold(seconds: float) -> None:
            async with gate:
                await asyncio.sleep(seconds)

        first, second, third = (asyncio.create_task(hold(seconds)) for seconds in (0.05, 9, 0))
        await asyncio.sleep(0.01)
        second.cancel()
        async with asyncio.timeout(2):
            await asyncio.gather(first, third)
        assert gate.idle

    asyncio.run(go())
