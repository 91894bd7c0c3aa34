"""Signals end a run after it has saved, with the status that the shell expects."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lavic.runs.run_files import find_run
from lavic.training.resuming import LAST
from tests.training import fit_small_run
from tests.training.command_line import Started, fork, status_of

ROOT = Path(__file__).parents[2]


def start(output: Path, *options: str) -> subprocess.Popen[bytes]:
    """The small run as Lightning starts several processes: each by its own command."""
    command = [sys.executable, "-m", "tests.training.fit_small_run", str(output), *options]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def start_one(output: Path, *options: str, **environment: str) -> Started:
    """The small run as one process."""
    said = output / "said.txt"
    return fork(lambda: fit_small_run.main([str(output), *options]), environment, said, said)


def send(process: Started, signum: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, signum)


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def steps(output: Path) -> list[int]:
    return [json.loads(line)[0] for line in (output / "losses.jsonl").read_text().splitlines()]


def saved_step(output: Path) -> int:
    return int(torch.load(output / LAST, weights_only=True)["global_step"])


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_running_step_and_stops(tmp_path: Path, signum: int, status: int) -> None:
    process = start_one(tmp_path, "seconds=0.2")
    wait_for(tmp_path / "losses.jsonl")
    send(process, signum)
    assert status_of(process, 30) == status
    assert saved_step(tmp_path) == steps(tmp_path)[-1] + 1  # nothing that was computed is lost
    assert find_run(tmp_path / "logs").status() == "interrupted"


def test_a_signal_amid_a_validation_stops_there_and_the_validation_is_done_again(tmp_path: Path) -> None:
    process = start_one(tmp_path, "validation_seconds=0.4", "max_epochs=1", "num_sanity_val_steps=0")
    wait_for(tmp_path / LAST)
    while saved_step(tmp_path) < 6:
        time.sleep(0.05)
    send(process, signal.SIGTERM)
    assert status_of(process, 30) == 143
    assert status_of(start_one(tmp_path, "max_epochs=1"), 60) == 0
    assert find_run(tmp_path / "logs").last("validation")["step"] == 6


def test_slurms_warning_saves_and_queues_the_job_again(tmp_path: Path) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    path = f"{scontrol.parent}:{os.environ['PATH']}"
    process = start_one(tmp_path, "seconds=0.2", SLURM_JOB_ID="4711", PATH=path)
    wait_for(tmp_path / "losses.jsonl")
    send(process, signal.SIGUSR1)
    assert status_of(process, 30) == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert (tmp_path / LAST).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_first_of_two_processes_stops_both(tmp_path: Path, signum: int, status: int) -> None:
    process = start(tmp_path, "seconds=0.2", "devices=2", 'strategy="ddp"')
    wait_for(tmp_path / "losses.jsonl")
    process.send_signal(signum)
    assert process.wait(60) == status
    assert saved_step(tmp_path) == steps(tmp_path)[-1] + 1
    assert not children_of(process.pid, str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_failing_process_ends_all_and_its_error_is_shown(tmp_path: Path, rank: int) -> None:
    command = [sys.executable, "-m", "tests.training.fit_small_run", str(tmp_path), "devices=2", 'strategy="ddp"']
    done = subprocess.run(
        [*command, f"raising_rank={rank}"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert f"process {rank} broke" in done.stderr
    assert not children_of(0, str(tmp_path))


def children_of(pid: int, mark: str) -> list[str]:
    """Processes other than `pid` whose command holds the mark."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if mark in line and line.split()[0] != str(pid)]
