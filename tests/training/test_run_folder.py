"""Each run has its own folder in logs, and an output directory is one run's at a time."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lavic.errors import UserError
from lavic.training.run_folder import NAME, lock_output, run_id

HOLDER = """
import sys, time
from pathlib import Path
from lavic.training.run_folder import lock_output
lock_output(Path(sys.argv[1]), "--there")
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of an output directory."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def alone(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """As a fresh process of a shell, torchrun or SLURM would find its environment."""
    for name in (NAME, "RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_runs_of_one_second_have_each_their_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "training_20260101_000000")
    found = []
    for _ in range(3):
        alone(monkeypatch)
        found.append(run_id(tmp_path / "logs"))
    assert found == ["training_20260101_000000", "training_20260101_000000_2", "training_20260101_000000_3"]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == found


def test_the_processes_of_a_run_share_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    name = run_id(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "1")  # as Lightning starts the second process, with this environment
    assert run_id(tmp_path) == name
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK"])
def test_other_processes_neither_make_a_folder_nor_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    alone(monkeypatch, **{variable: "1"})
    assert re.fullmatch(r"training_\d{8}_\d{6}", run_id(tmp_path / "logs"))
    assert not (tmp_path / "logs").exists()
    with holder(tmp_path):
        lock_output(tmp_path, "--out")  # the run's first process holds it


def test_an_output_directory_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    with holder(tmp_path) as process:
        with pytest.raises(UserError, match=rf"{tmp_path} is in use by .*process {process.pid}.* by --out, or"):
            lock_output(tmp_path, "--out")
        lock_output(tmp_path.parent, "--out")  # another one's


def test_a_kill_releases_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    with holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        lock_output(tmp_path, "--out")
