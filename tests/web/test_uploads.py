"""Visitors' uploads: bounded in age and bytes, and gone with their server, however it ended."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lavic.web.uploads import PREFIX, Uploads

KILLED = """
import os, signal
from lavic.web.uploads import Uploads
(Uploads().folder / "photo.jpg").write_bytes(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def put(uploads: Uploads, name: str, size: int, changed: float) -> Path:
    path = uploads.folder / name / "photo.jpg"
    path.parent.mkdir()
    path.write_bytes(b"x" * size)
    os.utime(path, (changed, changed))
    return path


def test_what_is_too_old_goes_and_then_the_oldest_of_what_is_too_much() -> None:
    uploads = Uploads(seconds=3600, most=100)
    old, third, second, first = (put(uploads, str(n), 40, at) for n, at in enumerate((1000.0, 5000.0, 5001.0, 5002.0)))
    uploads.sweep(now=4700.0)
    assert not old.parent.exists()
    assert not third.exists(), "120 bytes are more than 100"
    assert second.exists()
    assert first.exists()
    uploads.sweep(now=8601.5)
    assert not second.exists()
    assert first.exists()
    uploads.close()
    assert not uploads.folder.exists()


def test_a_killed_servers_uploads_go_when_the_next_one_starts(temporary: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = temporary.glob(f"{PREFIX}*")
    first = Uploads()
    assert not left.exists()
    second = Uploads()
    assert first.folder.exists(), "a server that runs keeps its own"
    first.close()
    second.close()
    assert not list(temporary.glob(f"{PREFIX}*"))
