"""The crawl as the user sees it: a bar on a terminal, a line now and then elsewhere, a closing table."""

import asyncio
import time
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from crawl.counts import Counts
from crawl.journal import State

REDRAW_SECONDS = 0.2
LINE_SECONDS = 10.0
RATE_SECONDS = 15.0  # the stretch of time that images/s, MB/s and ETA speak of


class Rates:
    """Images and megabytes a second over the last stretch of time."""

    def __init__(self) -> None:
        self._past: list[tuple[float, int, int]] = []

    def describe(self, counts: Counts) -> str:
        """One line: images/s, MB/s, failures, ETA."""
        now = time.monotonic()
        worked = counts.fetched + counts.adopted + counts.failed + counts.unchanged
        self._past.append((now, worked, counts.bytes))
        while len(self._past) > 2 and now - self._past[0][0] > RATE_SECONDS:
            self._past.pop(0)
        then, worked_then, bytes_then = self._past[0]
        seconds = max(now - then, 1e-9)
        images, megabytes = (worked - worked_then) / seconds, (counts.bytes - bytes_then) / seconds / 1e6
        left = max(0, counts.wanted - counts.finished)
        eta = _duration(left / images) if images > 0 else "?"
        return f"{images:.0f} images/s, {megabytes:.1f} MB/s, {counts.failed} failed, ETA {eta}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


async def show(counts: Counts, console: Console) -> None:
    """Show `counts` until cancelled."""
    with suppress(asyncio.CancelledError):
        await (_bar(counts, console) if console.is_terminal else _lines(counts, console))


async def _bar(counts: Counts, console: Console) -> None:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rates]}"))
    rates = Rates()
    # Drawn from the event loop: rich's own thread would compete with it for the interpreter.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=counts.wanted, rates="")
        while True:
            progress.update(task, completed=counts.finished, rates=rates.describe(counts), refresh=True)
            await asyncio.sleep(REDRAW_SECONDS)


async def _lines(counts: Counts, console: Console) -> None:
    rates = Rates()
    rates.describe(counts)
    while True:
        await asyncio.sleep(LINE_SECONDS)
        console.print(f"{counts.finished} of {counts.wanted}: {rates.describe(counts)}")


def closing_table(tally: list[tuple[State, str, int]], problems: int) -> Table:
    """This run's URLs by state and reason."""
    table = Table(title="Images")
    for name, side in (("state", "left"), ("reason", "left"), ("URLs", "right")):
        table.add_column(name, justify="right" if side == "right" else "left")
    for state, reason, number in tally:
        table.add_row(state.value, reason, str(number))
    if problems:
        table.add_row("malformed", "in the sources", str(problems))
    return table
