"""One run of the crawler from its settings to its exit status."""

import asyncio
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from crawl import plan
from crawl.counts import Counts
from crawl.crawler import Crawler
from crawl.errors import StorageError, UserError
from crawl.fetch import Fetcher, FetchRules, Kind, Transport
from crawl.hosts import HostRules
from crawl.journal import Journal, State
from crawl.progress import closing_table, show
from crawl.retries import Retries, RetryRules
from crawl.safety import AllowedHosts
from crawl.settings import Settings
from crawl.sources import Source
from crawl.store import Store
from crawl.verifiers import Verifiers
from crawl.verify import ImageRules
from lavic.files import writing

DONE, WRONG_INPUT, TRANSIENT_LEFT = 0, 2, 3

MakeTransport = Callable[[Settings], Transport]


def make_fetcher(settings: Settings) -> Transport:
    """The transport of a real crawl. Call it in the event loop."""
    rules = FetchRules(
        settings.connect_timeout, settings.silence_timeout, settings.total_timeout, settings.max_bytes,
        settings.user_agent, settings.ignore_robots_tag,
    )  # fmt: skip
    return Fetcher(rules, AllowedHosts(settings.allow_host))


def crawl(settings: Settings, results: Console, notes: Console, make_transport: MakeTransport = make_fetcher) -> int:
    """Run the crawler; SIGINT and SIGTERM stop it. Returns the exit status. Raises UserError.

    `results` gets the closing table, `notes` progress and advice; neither may take paths for markup.
    """
    AllowedHosts(settings.allow_host)
    sources = _present_sources(settings, notes)
    rules = ImageRules(settings.max_pixels, settings.max_side, settings.jpeg_quality)
    store = Store(settings.journal_path(), rules)
    folders = {source.out for source in sources} | {settings.journal_path().absolute().parent}
    if not settings.dry_run:
        for folder in folders:
            store.prepare_folder(folder)
    journal = Journal(settings.journal_path(), settings.dry_run)
    verifiers = None
    gc.freeze()  # what is imported need not be searched again and again, nor the verifiers' copies of it be touched
    try:
        if not settings.dry_run:
            for folder in folders:  # only now is it certain that no other crawl writes there
                store.remove_leftovers(folder)
            processes = settings.decode_processes or min(8, os.cpu_count() or 1)
            verifiers = Verifiers(settings.journal_path(), rules, processes, slots=settings.in_flight)
        return asyncio.run(_Session(settings, results, notes, sources, journal, store).run(make_transport, verifiers))
    finally:
        gc.unfreeze()
        if verifiers is not None:
            verifiers.end()
        journal.close()


def _present_sources(settings: Settings, notes: Console) -> list[Source]:
    present = []
    for source in settings.sources():
        try:
            is_folder, is_there = source.file.is_dir(), source.file.exists()
        except OSError as error:  # a folder on the way that may not be entered
            raise UserError(
                f"The metadata file {source.file} cannot be read ({error.strerror}); give another."
            ) from None
        if is_folder:
            raise UserError(f"The metadata file {source.file} is a folder: give the path of a file.")
        if is_there:
            present.append(source)
        elif settings.source:
            raise UserError(f"There is no metadata file {source.file}: give another path by --source.")
        else:
            notes.print(f"There is no metadata file {source.file}.", soft_wrap=True)
    if not present:
        raise UserError("No metadata file was found: put one there, or name one by --source FILE --out DIR.")
    return present


class _Session:
    def __init__(
        self, settings: Settings, results: Console, notes: Console, sources: list[Source], journal: Journal,
        store: Store,
    ) -> None:  # fmt: skip
        self._settings, self._results, self._notes, self._sources = settings, results, notes, sources
        self._journal, self._store = journal, store
        self._counts = Counts()
        self._stop_scanning = threading.Event()
        self._crawler: Crawler | None = None
        self._signal: int | None = None

    async def run(self, make_transport: MakeTransport, verifiers: Verifiers | None) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError, NotImplementedError):  # not in the main thread, or on Windows
                loop.add_signal_handler(number, self._interrupt, number)
        started = time.monotonic()
        disk_error = None
        try:
            if verifiers is not None:
                await verifiers.open()
            whole = await asyncio.to_thread(self._scan)
            self._counts.wanted = self._journal.count_wanted()
            if verifiers is None:
                return self._say_plan(whole)
            if self._signal is None:
                await self._fetch(make_transport, verifiers)
        except StorageError as error:
            disk_error, whole = error, True
        finally:
            if verifiers is not None:
                await verifiers.close()
        return self._close(disk_error, whole, time.monotonic() - started)

    def _interrupt(self, number: int) -> None:
        if self._signal is not None:  # the second time: at once
            os._exit(128 + number)
        self._signal = number
        self._stop_scanning.set()
        if self._crawler is not None:
            self._crawler.stop()

    def _scan(self) -> bool:
        settings, whole = self._settings, True
        self._journal.begin_run()
        for source in self._sources:
            fault = plan.scan(
                source, self._journal, settings.shard_of(), settings.first_image_only, self._stop_scanning
            )
            if fault is not None:
                self._notes.print(fault, soft_wrap=True)
                whole = False
        return whole

    async def _fetch(self, make_transport: MakeTransport, verifiers: Verifiers) -> None:
        settings = self._settings
        transport = make_transport(settings)
        retries = Retries(
            transport,
            settings.in_flight,
            HostRules(settings.per_host or settings.in_flight, settings.rate, settings.host_patience),
            RetryRules(settings.tries, settings.backoff, settings.retry_after_cap),
        )
        window = max(256, 8 * settings.in_flight)
        self._crawler = Crawler(self._journal, self._store, verifiers, retries, self._counts, window, settings.verify)
        display = asyncio.create_task(show(self._counts, self._notes))
        try:
            await self._crawler.run(self._pages())
        finally:
            display.cancel()
            await display
            await transport.close()

    def _pages(self) -> Iterator[plan.Page]:
        settings = self._settings
        return plan.pages(self._journal, settings.retry_failed, settings.verify, settings.refresh)

    def _say_plan(self, whole: bool) -> int:
        counts, fetch, check, again = self._counts, 0, 0, 0
        for page in self._pages():
            counts.present += page.present
            counts.given_up_before += page.given_up
            again += sum(not job.unverified and not job.missing for job in page.jobs)
            check += sum(bool(job.unverified) for job in page.jobs)
            fetch += sum(not job.unverified and not job.present for job in page.jobs)
        asked_again = f" {again} stored and to be asked for again," if self._settings.refresh else ""
        self._say(
            f"{counts.wanted} URLs: {counts.present} stored,{asked_again} {fetch} to fetch, {check} found on disk"
            f" and to be verified, {counts.given_up_before} failed for good before,"
            f" {self._journal.count_problems()} malformed entries. Nothing was changed."
        )
        return DONE if whole else WRONG_INPUT

    def _close(self, disk_error: StorageError | None, whole: bool, seconds: float) -> int:
        tally = self._journal.tally()
        try:
            self._write_failures(self._settings.failures_path())
        except OSError as error:
            disk_error = disk_error or StorageError(f"The failures cannot be listed: {error.strerror}.")
        problems = self._journal.count_problems()
        self._results.print(closing_table(tally, problems))
        counts = self._counts
        self._say(
            f"{counts.fetched} images fetched ({counts.bytes / 1e6:.1f} MB) in {seconds:.1f} s,"
            f" {counts.adopted} found on disk and verified, {counts.present + counts.unchanged} already stored"
            f"{f', {counts.unchanged} of them as their hosts have them' if self._settings.refresh else ''}."
        )
        if any(state not in (State.DONE, State.NEW) for state, _, _ in tally) or problems:
            self._say(f"What is missing and why: {self._settings.failures_path()}")
        if disk_error is not None:
            self._note(f"{disk_error} Make room and run this again: it goes on from here.")
            return TRANSIENT_LEFT
        if self._signal is not None:
            self._note("Stopped. Run this again: it goes on from here.")
            return 128 + self._signal
        if not whole:
            self._note("A metadata file could not be read, or not to its end: see the list of failures.")
            return WRONG_INPUT
        return self._status(tally)

    def _status(self, tally: list[tuple[State, str, int]]) -> int:
        """The exit status of a run that came to its end; nothing at all where something was asked for is no success."""
        counts = self._counts
        for (_, reason), number in counts.unanswered.most_common():
            self._note(f"{number} stored images could not be asked for again and stay as they are: {reason}.")
        for reason, number in self._journal.reasons(State.REFUSED):
            self._note(f"{number} URLs were not asked: {reason}.")
        transient = any(kind is Kind.TRANSIENT for kind, _ in counts.unanswered)
        if transient or any(state in (State.TRANSIENT, State.NEW) for state, _, _ in tally):
            return TRANSIENT_LEFT
        if tally and not any(state is State.DONE for state, _, _ in tally):
            self._note(f"None of the {counts.wanted} images could be had; see {self._settings.failures_path()}.")
            return WRONG_INPUT
        if counts.unanswered and not counts.unchanged + counts.fetched:
            self._note("None of the stored images could be asked for again.")
            return WRONG_INPUT
        return DONE

    def _say(self, sentence: str) -> None:
        self._results.print(sentence, soft_wrap=True)

    def _note(self, sentence: str) -> None:
        self._notes.print(sentence, soft_wrap=True)

    def _write_failures(self, path: Path) -> None:
        with writing(path) as stream:
            for record in self._journal.failures():
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
