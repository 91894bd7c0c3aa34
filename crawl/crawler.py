"""The crawl itself: jobs fetched and verified side by side, stored and entered in batches."""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crawl.counts import Counts
from crawl.fetch import NOT_MODIFIED, Body, Kind
from crawl.headers import Validators
from crawl.journal import FileRow, Journal, State, Verdict
from crawl.plan import Job, Page
from crawl.retries import GaveUpError, Obtained, Retries
from crawl.store import FileError, Store, Written
from crawl.verifiers import Checked, Verifiers
from crawl.verify import BrokenImageError
from lavic.files import file_hash

BATCH_SECONDS = 0.25  # how long an image waits for others before the disk is asked to make them durable
BATCH_LENGTH = 128

NOTHING_KNOWN = Validators()

STATES = {Kind.TRANSIENT: State.TRANSIENT, Kind.PERMANENT: State.PERMANENT, Kind.REFUSED: State.REFUSED}


@dataclass(slots=True)  # not frozen, like all that is made once an image: that would double the cost
class _Finished:
    """A job's end: the files to publish, and then what to enter, if anything has changed."""

    verdict: Verdict | None
    files: list[Written]
    fetched: bool = False


class Crawler:
    """Works through pages of jobs. `run` may be called once."""

    def __init__(
        self, journal: Journal, store: Store, verifiers: Verifiers, retries: Retries, counts: Counts,
        window: int, verify: bool,
    ) -> None:  # fmt: skip
        """`window`: jobs under way at once, those that wait for a host or for the disk included. `verify`: a
        file on disk must have the SHA-256 that the journal knows."""
        self._journal, self._store, self._retries, self._counts = journal, store, retries, counts
        self._verifiers, self._verify = verifiers, verify
        self._room = asyncio.Semaphore(window)
        self._storing = ThreadPoolExecutor(1, "store")
        self._planning = ThreadPoolExecutor(1, "plan")
        self._jobs: set[asyncio.Task[None]] = set()
        self._on_network: set[asyncio.Task[None]] = set()
        self._finished: list[_Finished] = []
        self._wake = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._stopped = self._ended = False
        self._failure: BaseException | None = None

    async def run(self, pages: Iterator[Page]) -> None:
        """Do all jobs. Raises StorageError when the disk takes no more; what was stored until then stays."""
        flushing = asyncio.create_task(self._flush_batches())
        self._starting = asyncio.create_task(self._start_jobs(pages))
        try:
            with suppress(asyncio.CancelledError):
                await self._starting
        except Exception as error:
            self._fail(error)
        while self._jobs:
            await asyncio.wait(self._jobs)
        self._ended = True
        self._wake.set()
        await flushing
        for threads in (self._planning, self._storing):
            threads.shutdown()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask for nothing more; what has arrived is still verified and stored. `run` then returns."""
        self._stopped = True
        if self._starting is not None:
            self._starting.cancel()
        for task in self._on_network:
            task.cancel()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self.stop()

    async def _start_jobs(self, pages: Iterator[Page]) -> None:
        def following() -> Page | None:
            return next(pages, None)

        loop = asyncio.get_running_loop()
        coming = loop.run_in_executor(self._planning, following)
        while (page := await coming) is not None:
            coming = loop.run_in_executor(self._planning, following)
            self._counts.present += page.present
            self._counts.given_up_before += page.given_up
            for job in page.jobs:
                await self._room.acquire()
                task = asyncio.create_task(self._run_job(job))
                self._jobs.add(task)
                task.add_done_callback(self._job_ended)

    def _job_ended(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if task.cancelled():
            self._room.release()
        elif (error := task.exception()) is not None:
            self._room.release()
            self._fail(error)

    # --- one job ---

    async def _run_job(self, job: Job) -> None:
        finished = _Finished(None, [])
        try:
            finished.verdict, finished.fetched = await self._complete(job, finished.files)
            if job.refresh and not finished.fetched:
                await self._refresh(job, finished)
        except GaveUpError as error:
            finished.verdict = Verdict(job.row.id, STATES[error.kind], error.tries, error.status, error.reason)
        except FileError as error:
            finished.verdict = Verdict(job.row.id, State.PERMANENT, reason=str(error))
        except BaseException:
            self._store.discard(finished.files)
            raise
        self._finished.append(finished)
        if len(self._finished) in (1, BATCH_LENGTH):
            self._wake.set()

    async def _complete(self, job: Job, files: list[Written]) -> tuple[Verdict | None, bool]:
        """Get every file of a job under a temporary or final name, collected in `files`.

        Returns the verdict, None if all were there, and whether the image was fetched.
        """
        if not job.missing and not job.unverified:
            return None, False
        image = await self._look_at_disk(job, files) if job.unverified or job.present else None
        obtained: Obtained[Checked | None] | None = None
        if image is None:
            obtained = await self._fetch(job, files, _targets(job.missing))
            image = obtained.value
            assert image is not None  # nothing was known of it, and so it came whole
        elif job.missing:  # the same image under another name
            stored = image.files[0]
            copied = await self._verifiers.copy(stored.temporary or stored.final, _targets(job.missing))
            files += copied.files
        return _done(job, image, files[-1], obtained), obtained is not None

    async def _refresh(self, job: Job, finished: _Finished) -> None:
        """Ask for an image that is there again. What comes takes its place; where nothing comes, it stays."""
        on_disk = [*job.present, *job.unverified]
        as_stored = await asyncio.to_thread(lambda: all(map(_is_as_stored, on_disk)))
        known = job.row.validators if as_stored else Validators()
        fresh: list[Written] = []
        try:
            files = {file.id: file for file in (*on_disk, *job.missing)}
            obtained = await self._fetch(job, fresh, _targets(files.values()), known)
        except GaveUpError as error:
            self._counts.unanswered[error.kind, error.reason] += 1
            return
        except BaseException:
            self._store.discard(fresh)
            raise
        image = obtained.value
        if image is not None:
            finished.verdict = _done(job, image, fresh[-1], obtained)
        elif finished.verdict is not None:
            finished.verdict.validators = known
        if image is None or (as_stored and all(file.sha256 == fresh[-1].sha256 for file in on_disk)):
            self._store.discard(fresh)  # the same bytes: the files keep their times, and what was made of them
            self._counts.unchanged += not finished.files
            return
        self._store.discard(finished.files)
        finished.files, finished.fetched = fresh, True

    async def _look_at_disk(self, job: Job, files: list[Written]) -> Checked | None:
        """Verify the job's files that are there; broken ones join the missing. Returns a good image."""
        image = None
        for file in job.unverified:
            image = await self._adopt(job, file, files) or image
        if job.missing and image is None and job.present:
            image = await self._adopt(job, job.present[0], files)
        return image

    async def _adopt(self, job: Job, file: FileRow, files: list[Written]) -> Checked | None:
        try:
            image = await self._verifiers.adopt(file.id, file.path, file.sha256 if self._verify else None)
        except BrokenImageError:
            job.missing.append(file)
            return None
        files += image.files
        return image

    async def _fetch(
        self, job: Job, files: list[Written], targets: list[tuple[int, str]], known: Validators = NOTHING_KNOWN
    ) -> Obtained[Checked | None]:
        """Fetch the job's image; None if it still is as `known`. Only while it is on the network can `stop` cancel
        it."""
        task = asyncio.current_task()
        assert task is not None

        async def accept(body: Body) -> Checked | None:
            self._on_network.discard(task)
            if body.status == NOT_MODIFIED:
                return None
            try:
                image = await self._verifiers.write(body.data, targets)
            except BrokenImageError:
                self._back_to_network(task)
                raise
            files.extend(image.files)
            return image

        self._back_to_network(task)
        try:
            return await self._retries.get(job.row.url, accept, known)
        finally:
            self._on_network.discard(task)

    def _back_to_network(self, task: "asyncio.Task[None]") -> None:
        if self._stopped:
            raise asyncio.CancelledError
        self._on_network.add(task)

    # --- batches ---

    async def _flush_batches(self) -> None:
        while not self._ended or self._finished:
            await self._wake.wait()
            self._wake.clear()
            if not self._ended and len(self._finished) < BATCH_LENGTH:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), BATCH_SECONDS)
                self._wake.clear()
            batch, self._finished = self._finished, []
            try:
                await asyncio.get_running_loop().run_in_executor(self._storing, self._flush, batch)
                for finished in batch:
                    self._count(finished)
            except Exception as error:
                self._fail(error)
            for _ in batch:
                self._room.release()
            if self._ended:
                self._wake.set()

    def _flush(self, batch: list[_Finished]) -> None:
        failed = self._store.publish(file for finished in batch for file in finished.files)
        for finished in batch:
            verdict = finished.verdict
            if verdict is None:
                continue
            good = [file for file in finished.files if file.file_id not in failed]
            verdict.files = [(file.file_id, file.size, file.sha256, file.mtime_ns) for file in good]
            if len(good) < len(finished.files):
                verdict.state, verdict.reason = State.PERMANENT, "the file cannot be written under its name"
        self._journal.enter(finished.verdict for finished in batch if finished.verdict is not None)

    def _count(self, finished: _Finished) -> None:
        if finished.verdict is not None and finished.verdict.state is not State.DONE:
            self._counts.failed += 1
        elif finished.fetched:
            self._counts.fetched += 1
            self._counts.bytes += finished.files[-1].size
        elif finished.files:
            self._counts.adopted += 1


def _targets(files: Iterable[FileRow]) -> list[tuple[int, str]]:
    return [(file.id, file.path) for file in files]


def _is_as_stored(file: FileRow) -> bool:
    try:
        return file.sha256 is not None and file_hash(Path(file.path)) == file.sha256.hex()
    except OSError:
        return False


def _done(job: Job, image: Checked, file: Written, obtained: Obtained[Checked | None] | None) -> Verdict:
    """The verdict on an image that is there: fetched, or found on disk."""
    verdict = Verdict(
        job.row.id, State.DONE, reason="found on disk", size=file.size, width=image.width, height=image.height,
        sha256=file.sha256,
    )  # fmt: skip
    if obtained is not None:
        verdict.reason, verdict.tries, verdict.status = None, obtained.tries, obtained.status
        verdict.validators = obtained.validators
    return verdict
