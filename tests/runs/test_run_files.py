"""A run's files say whether it lives, how far it is, and what it continues."""

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from lavic.errors import UserError
from lavic.runs.run_files import find_run, process_start, run_ids
from tests.small_runs import train_event, validation_event, write_run


def end(status: str) -> dict[str, object]:
    return {"time": time.time(), "event": "end", "status": status, "message": ""}


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_living_run_a_crashed_one_and_an_ended_one_are_told_apart(tmp_path: Path) -> None:
    events = [train_event(10, 2.0)]
    write_run(tmp_path, "alive", events)
    write_run(tmp_path, "crashed", events, pid=gone(), pid_start=17)
    write_run(tmp_path, "number_used_again", events, pid_start=17)
    for status in ("finished", "interrupted", "failed"):
        write_run(tmp_path, status, [*events, end(status)])
    found = {run_id: find_run(tmp_path, run_id).status() for run_id in run_ids(tmp_path)}
    assert found == {
        "alive": "running",
        "crashed": "crashed",
        "number_used_again": "crashed",
        "finished": "finished",
        "interrupted": "interrupted",
        "failed": "failed",
    }


def test_a_run_on_another_host_is_stale_after_ten_silent_minutes(tmp_path: Path) -> None:
    directory = write_run(tmp_path, "away", [train_event(10, 2.0)], host="elsewhere")
    assert find_run(tmp_path).status() == "running"
    for path in directory.iterdir():
        os.utime(path, (time.time() - 601, time.time() - 601))
    assert find_run(tmp_path).status() == "stale"


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen(["true"])
    time.sleep(0.3)
    assert process_start(process.pid) is None
    process.wait()


def test_the_clock_may_be_set_while_a_run_lives(tmp_path: Path) -> None:
    began = process_start(os.getpid())
    assert began is not None
    assert began == pytest.approx(psutil.Process().create_time())
    for moved, status in ((5.0, "running"), (-5.0, "running"), (3600.0, "crashed")):
        write_run(tmp_path, f"moved_{moved}", [train_event(10, 2.0)], pid_start=began + moved)
        assert find_run(tmp_path, f"moved_{moved}").status() == status


def test_half_a_line_is_passed_over(tmp_path: Path) -> None:
    directory = write_run(tmp_path, "run", [train_event(10, 2.0)])
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1, "event": "tr')
    assert find_run(tmp_path).step == 10


def test_time_left_follows_the_newest_speed(tmp_path: Path) -> None:
    write_run(tmp_path, "run", [train_event(s, 2.0, ago=40 - s) for s in (10, 20, 30)])
    assert find_run(tmp_path).seconds_left() == pytest.approx(10, abs=0.1)


def test_a_resumed_run_begins_with_the_curve_that_it_continues(tmp_path: Path) -> None:
    write_run(tmp_path, "first", [train_event(s, 9 - s / 10) for s in (10, 20, 30)], pid=gone(), pid_start=1, started=1)
    continues = {"run_id": "first", "step": 20}
    write_run(tmp_path, "second", [train_event(30, 1.0), validation_event(30, 1.5)], continues=continues)
    run = find_run(tmp_path)
    assert run.run_id == "second"
    assert [(e["step"], e["train_loss"]) for e in run.of("train")] == [(10, 8.0), (20, 7.0), (30, 1.0)]
    assert run.status() == "running"


def test_missing_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        find_run(tmp_path)
    write_run(tmp_path, "training_1", [])
    with pytest.raises(UserError, match="'training_2'; the newest are: training_1"):
        find_run(tmp_path, "training_2")
