"""Kills, Ctrl-C, full and read-only disks: nothing is lost, nothing half-written is left under a final name."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crawl.store import Store
from crawl.verify import ImageRules
from tests.crawl import fault_server as reply
from tests.crawl.conftest import CrawlFolder
from tests.crawl.fault_server import FaultServer
from tests.crawl.images import decodes, encode, image, jpeg

NOBODY = 65534  # the user and the group without any rights


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(where)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def serve_mixture(server: FaultServer, images: int) -> dict[str, str]:
    """Whole images, images that need a second try, images to convert, and a few that cannot be had."""
    urls: dict[str, str] = {}
    for number in range(images):
        good = reply.answer(body=jpeg(number))
        replies: tuple[reply.Reply, ...] = (good,)
        if number % 20 == 3:
            replies = (reply.answer(503), good)
        elif number % 20 == 5:
            replies = (reply.answer(body=encode(image(number), "PNG")),)
        elif number % 20 == 7:
            replies = (reply.answer(404),)
        elif number % 20 == 9:
            replies = (reply.answer(body=b"<html>"),)
        urls[f"{number:04d}"] = server.script(f"/{number:04d}", *replies)
    return urls


def check_files(folder: CrawlFolder) -> set[str]:
    """Every file under a final name decodes; returns their names."""
    names = folder.stored()
    for name in names:
        assert decodes((folder.out / name).read_bytes()), name
    return names


def kill_and_restart(folder: CrawlFolder, server: FaultServer, images: int, kills: int) -> None:
    """Crawl, killed at `kills` random moments; then see that all is as after one undisturbed run."""
    server.latency = 0.02
    urls = serve_mixture(server, images)
    folder.want(urls)
    rng = random.Random(images)
    finished: set[str] = set()
    for _ in range(kills):
        asked_before = len(server.requests)
        running = folder.start("--in-flight", "8")
        # Count from the first new request on, so that start-up's length does not matter; half of the kills fall
        # into the first moments of a run, where old files are adopted and pages planned.
        deadline = time.monotonic() + 20
        while len(server.requests) == asked_before and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.choice([rng.uniform(0, 0.15), rng.uniform(0, 0.6)]))
        running.send_signal(signal.SIGKILL)
        running.wait()
        again = {request.path for request in server.requests[asked_before:]} & {
            f"/{name.removesuffix('_0.jpg')}" for name in finished
        }
        assert not again, f"finished images were fetched again: {sorted(again)}"
        finished = check_files(folder)
    asked_before = len(server.requests)
    assert folder.crawl("--in-flight", "8") == 0
    again = {request.path for request in server.requests[asked_before:]}
    assert not again & {f"/{name.removesuffix('_0.jpg')}" for name in finished}
    assert kills == 0 or finished, "every kill came before the first image: the test shows nothing"

    expected = {f"{item}_0.jpg" for item in urls if int(item) % 20 not in (7, 9)}
    assert folder.files() == expected, "temporary files are left, or images are missing"
    check_files(folder)
    for item, url in urls.items():
        row = folder.rows()[url] if int(item) % 20 in (7, 9) else None
        assert row is None or row["state"] == "permanent"
    assert sum(row["state"] == "done" for row in folder.rows().values()) == len(expected)


def test_killed_four_times_and_restarted(folder: CrawlFolder, server: FaultServer) -> None:
    kill_and_restart(folder, server, images=400, kills=4)


@pytest.mark.slow
def test_killed_twenty_times_and_restarted(folder: CrawlFolder, server: FaultServer) -> None:
    kill_and_restart(folder, server, images=3000, kills=20)


def test_killed_between_rename_and_journal(folder: CrawlFolder, server: FaultServer) -> None:
    """The worst moment: the file stands, and the journal knows nothing of it."""
    urls = serve_mixture(server, 6)
    folder.want(urls)
    assert folder.crawl() == 0
    before = folder.stored()
    (folder.root / "crawl.sqlite").unlink()
    asked = len(server.requests)
    assert folder.crawl() == 0
    assert len(server.requests) == asked
    assert folder.stored() == before
    assert {row["reason"] for row in folder.rows().values()} == {"found on disk"}


def test_ctrl_c_stops_within_five_seconds_and_loses_nothing(folder: CrawlFolder, server: FaultServer) -> None:
    urls = serve_mixture(server, 400)
    server.latency = 0.05
    # One image drips for as long as it may: Ctrl-C must not wait for it.
    folder.want({"slow": server.script("/slow", reply.drip(jpeg(1), 0.2))} | urls)
    running = folder.start("--in-flight", "16", "--total-timeout", "60")
    while len(server.requests) < 100:
        time.sleep(0.01)
    pressed = time.monotonic()
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=30)
    assert time.monotonic() - pressed < 5
    assert running.returncode == 130, output
    assert "goes on from here" in output
    stored = check_files(folder)
    assert folder.files() == stored, "temporary files are left"
    rows = folder.rows()
    assert {f"{item}_0.jpg" for item, url in urls.items() if rows[url]["state"] == "done"} == stored
    assert stored

    before = len(server.requests)
    folder.want(urls)
    assert folder.crawl() == 0
    again = {request.path for request in server.requests[before:]}
    assert not again & {f"/{name.removesuffix('_0.jpg')}" for name in stored}


def test_a_full_disk_ends_the_crawl_and_the_next_run_goes_on(
    tmpfs: Path, server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = CrawlFolder(tmpfs, server)
    urls = {f"{number:03d}": server.script(f"/{number}", reply.answer(body=jpeg(number, 200))) for number in range(200)}
    folder.want(urls)
    assert folder.crawl() == 3
    output = capsys.readouterr().err
    assert "No space left" in output or "full" in output
    stored = check_files(folder)
    assert 0 < len(stored) < 200
    assert folder.files() == stored, "temporary files are left"

    subprocess.run(["mount", "-o", "remount,size=20m", str(tmpfs)], check=True)
    before = len(server.requests)
    assert folder.crawl() == 0
    assert len(check_files(folder)) == 200
    again = {request.path for request in server.requests[before:]}
    assert not again & {f"/{int(name.removesuffix('_0.jpg'))}" for name in stored}


def test_a_read_only_folder_is_said_in_one_sentence(
    tmpfs: Path, server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = CrawlFolder(tmpfs, server)
    folder.want({"a": server.script("/a", reply.answer(body=jpeg(1)))})
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    assert folder.crawl() == 2
    message = capsys.readouterr().err
    assert str(folder.out) in message or str(tmpfs) in message
    assert message.count("\n") == 1
    assert server.requests == []


AS_NOBODY = f"""
import os, sys
from crawl.cli import main, parse
parse(sys.argv[1:])  # loads what is loaded late: nobody may be unable to read the modules
if os.geteuid() == 0:  # root may write everywhere
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
sys.exit(main(sys.argv[1:]))
"""


def test_a_folder_without_permission(server: FaultServer) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folder lets nobody but its user in
        folder = CrawlFolder(Path(name), server)
        folder.want({"a": server.script("/a", reply.answer(body=jpeg(1)))})
        folder.out.mkdir()
        if os.geteuid() == 0:
            for path in (folder.root, folder.out):
                os.chown(path, NOBODY, NOBODY)
        folder.out.chmod(0o500)
        command = [sys.executable, "-c", AS_NOBODY, *folder.arguments()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2, done.stderr
        assert f"The folder {folder.out} cannot be written: Permission denied" in done.stderr
        assert done.stderr.count("\n") == 1
        assert server.requests == []


def test_two_crawls_with_one_journal(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want({"slow": server.script("/slow", reply.drip(jpeg(1), 0.2))})
    first = folder.start("--total-timeout", "30")
    while not server.requests:
        time.sleep(0.01)
    _, (being_written,) = Store(folder.root / "crawl.sqlite", ImageRules(1_000_000, 0, 90)).write(
        jpeg(1), [(1, str(folder.out / "a.jpg"))]
    )
    second = folder.start()
    output, _ = second.communicate(timeout=20)
    assert Path(being_written.temporary or "").exists(), "the second has removed a file of the first"
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert "Another crawl" in output
