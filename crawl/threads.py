"""Threads beside the event loop, for work that is too short for concurrent.futures' bookkeeping."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

_Work = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]
_Done = tuple[asyncio.Future[Any], Any, BaseException | None]


class ThreadPool:
    """Runs functions in threads and hands their results to the event loop, many at a time.

    It does without the two locks and the wake-up of the loop for each call that `run_in_executor` takes.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Start the threads. Call it in the event loop that the results go to."""
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._done: deque[_Done] = deque()
        self._waking = False
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """`function(*arguments)`, in a thread; cancelling the caller does not stop it."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._work.put((future, function, arguments))
        return await future

    def close(self) -> None:
        """Finish the work that was given, and end the threads."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function, arguments = work
            try:
                done: _Done = (future, function(*arguments), None)
            except BaseException as error:
                done = (future, None, error)
            # Only the first result since the loop last looked has to wake it. The loop clears the flag before
            # it looks, so that a result which finds it set is always seen.
            self._done.append(done)
            if not self._waking:
                self._waking = True
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        while self._done:
            future, result, error = self._done.popleft()
            if future.done():  # its caller was cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
