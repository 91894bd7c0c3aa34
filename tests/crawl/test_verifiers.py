"""The processes that verify images: what goes to them comes back, and neither side outlives the other."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crawl.errors import StorageError
from crawl.store import FileError
from crawl.verifiers import Verifiers
from crawl.verify import BrokenImageError, ImageRules
from crawl.worker import SLOT
from tests.crawl import fault_server as reply
from tests.crawl.conftest import CrawlFolder
from tests.crawl.fault_server import FaultServer
from tests.crawl.images import encode, image, jpeg


@contextmanager
def another_thread() -> Iterator[None]:
    """While it runs, the process cannot be copied: the verifiers have to be started anew."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def use(folder: Path, work: Callable[[Verifiers], Awaitable[None]], slots: int = 2) -> None:
    """Run `work` with two processes."""
    verifiers = Verifiers(folder / "crawl.sqlite", ImageRules(10_000_000, 0, 90), processes=2, slots=slots)

    async def go() -> None:
        await verifiers.open()
        try:
            await work(verifiers)
        finally:
            await verifiers.close()

    try:
        asyncio.run(go())
    finally:
        verifiers.end()


def children(of: int) -> list[int]:
    """The process ids of the living children."""
    found = [int(pid) for pid in Path(f"/proc/{of}/task/{of}/children").read_text().split()]
    return [pid for pid in found if lives(pid)]


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_bodies_by_shared_memory_and_by_pipe(tmp_path: Path) -> None:
    """Two slots for ten bodies, one of which fits into none."""
    bodies = [jpeg(number, 200) for number in range(9)] + [encode(image(9, 900), "JPEG", quality=98)]
    assert len(bodies[-1]) > SLOT > len(bodies[0])

    async def work(verifiers: Verifiers) -> None:
        for _ in range(3):
            asked = [verifiers.write(body, [(n, str(tmp_path / str(n)))]) for n, body in enumerate(bodies)]
            for number, checked in enumerate(await asyncio.gather(*asked)):
                (written,) = checked.files
                assert (written.file_id, written.size) == (number, len(bodies[number]))
                assert (checked.width, checked.height) == ((900, 900) if number == 9 else (200, 200))
                assert Path(written.temporary or "").read_bytes() == bodies[number]

    with another_thread():
        use(tmp_path, work)


def test_errors_come_back_as_what_they_are(tmp_path: Path) -> None:
    async def work(verifiers: Verifiers) -> None:
        with pytest.raises(BrokenImageError, match="HTML"):
            await verifiers.write(b"<html>", [(1, str(tmp_path / "a"))])
        with pytest.raises(FileError):
            await verifiers.write(jpeg(1), [(1, str(tmp_path / "no-such-folder" / "a"))])
        with pytest.raises(FileError):
            await verifiers.adopt(1, str(tmp_path), None)
        with pytest.raises(FileError):
            await verifiers.copy(str(tmp_path / "gone"), [(1, str(tmp_path / "a"))])

    use(tmp_path, work)


def test_a_copied_process_does_the_same(tmp_path: Path) -> None:
    """The command line has one thread, so its verifiers are copies of it; this test's process may have more."""
    code = (
        "import asyncio, sys, threading; from pathlib import Path; from crawl.verifiers import Verifiers\n"
        "from tests.crawl.test_verifiers import test_bodies_by_shared_memory_and_by_pipe as test, use\n"
        "import tests.crawl.test_verifiers as module; from contextlib import nullcontext\n"
        "module.another_thread = nullcontext; assert threading.active_count() == 1\n"
        "import subprocess; subprocess.Popen = None\n"
        "test(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


def test_a_killed_process_is_an_error(tmp_path: Path) -> None:
    async def work(verifiers: Verifiers) -> None:
        for pid in children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(StorageError, match="ended"):
                await verifiers.write(jpeg(1), [(1, str(tmp_path / "a"))])

    use(tmp_path, work)


def start_and_wait(folder: CrawlFolder, server: FaultServer) -> "subprocess.Popen[str]":
    server.latency = 0.02
    folder.want({str(n): server.script(f"/{n}", reply.answer(body=jpeg(n))) for n in range(400)})
    running = folder.start("--in-flight", "8", "--decode-processes", "2")
    while len(server.requests) < 50:
        time.sleep(0.01)
    return running


def test_a_crawl_without_its_verifiers_ends_and_the_next_goes_on(folder: CrawlFolder, server: FaultServer) -> None:
    running = start_and_wait(folder, server)
    verifiers = children(running.pid)
    assert len(verifiers) == 2
    os.kill(verifiers[0], signal.SIGKILL)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 3, output
    assert "verifies images has ended" in output
    assert "Traceback" not in output
    assert folder.crawl() == 0
    assert len(folder.files()) == 400


def test_verifiers_do_not_outlive_a_killed_crawl(folder: CrawlFolder, server: FaultServer) -> None:
    running = start_and_wait(folder, server)
    verifiers = children(running.pid)
    assert len(verifiers) == 2
    running.kill()
    running.wait()
    deadline = time.monotonic() + 5
    while any(lives(pid) for pid in verifiers):
        assert time.monotonic() < deadline, "a verifier lives on"
        time.sleep(0.01)
