"""The crawl itself: jobs fetched and verified side by side, stored and entered in batches."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from crawl.counts import Counts
from crawl.fetch import Kind
from crawl.journal import FileRow, Journal, State, Verdict
from crawl.plan import Job, Page
from crawl.retries import GaveUpError, Obtained, Retries
from crawl.store import FileError, Store, Written
from crawl.verifiers import Checked, Verifiers
from crawl.verify import BrokenImageError

BATCH_SECONDS = 0.25  # how long an image waits for others before the disk is asked to make them durable
BATCH_LENGTH = 128

STATES = {Kind.TRANSIENT: State.TRANSIENT, Kind.PERMANENT: State.PERMANENT, Kind.REFUSED: State.REFUSED}


@dataclass(slots=True)  # not frozen, like all that is made once an image: that would double the cost
class _Finished:
    """A job's end: the files to publish, and then what to enter."""

    verdict: Verdict
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
        files: list[Written] = []
        try:
            verdict, fetched = await self._complete(job, files)
        except GaveUpError as error:
            verdict = Verdict(job.row.id, STATES[error.kind], error.tries, error.status, error.reason)
            fetched = False
        except FileError as error:
            verdict, fetched = Verdict(job.row.id, State.PERMANENT, reason=str(error)), False
        except BaseException:
            self._store.discard(files)
            raise
        self._finished.append(_Finished(verdict, files, fetched))
        if len(self._finished) in (1, BATCH_LENGTH):
            self._wake.set()

    async def _complete(self, job: Job, files: list[Written]) -> tuple[Verdict, bool]:
        """Get every file of a job under a temporary or final name, collected in `files`.

        Returns the verdict and whether the image was fetched.
        """
        image = await self._look_at_disk(job, files) if job.unverified or job.present else None
        obtained: Obtained[Checked] | None = None
        if image is None:
            obtained = await self._fetch(job, files)
            image = obtained.value
        elif job.missing:  # the same image under another name
            stored = image.files[0]
            copied = await self._verifiers.copy(stored.temporary or stored.final, _targets(job))
            files += copied.files
        verdict = Verdict(
            job.row.id, State.DONE, reason=None if obtained else "found on disk",
            tries=obtained.tries if obtained else 0, status=obtained.status if obtained else None,
            size=files[-1].size, width=image.width, height=image.height, sha256=files[-1].sha256,
        )  # fmt: skip
        return verdict, obtained is not None

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

    async def _fetch(self, job: Job, files: list[Written]) -> Obtained[Checked]:
        """Fetch the job's image. Only while it is on the network can `stop` cancel it."""
        task = asyncio.current_task()
        assert task is not None

        async def accept(body: bytes) -> Checked:
            self._on_network.discard(task)
            try:
                image = await self._verifiers.write(body, _targets(job))
            except BrokenImageError:
                self._back_to_network(task)
                raise
            files.extend(image.files)
            return image

        self._back_to_network(task)
        try:
            return await self._retries.get(job.row.url, accept)
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
            good = [file for file in finished.files if file.file_id not in failed]
            verdict.files = [(file.file_id, file.size, file.sha256, file.mtime_ns) for file in good]
            if len(good) < len(finished.files):
                verdict.state, verdict.reason = State.PERMANENT, "the file cannot be written under its name"
        self._journal.enter(finished.verdict for finished in batch)

    def _count(self, finished: _Finished) -> None:
        if finished.verdict.state is not State.DONE:
            self._counts.failed += 1
        elif finished.fetched:
            self._counts.fetched += 1
            self._counts.bytes += finished.verdict.size or 0
        else:
            self._counts.adopted += 1


def _targets(job: Job) -> list[tuple[int, str]]:
    return [(file.id, file.path) for file in job.missing]
