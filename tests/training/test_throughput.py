"""MFU: the method's own FLOP over time and the GPU's throughput, in every run on a known GPU."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lavic.commands import fit
from lavic.training import throughput
from lavic.training.throughput import Throughput, device_peak
from tests.tasks.cases import CASES, batch, fit_arguments


class Task:
    """As much of the task as the callback asks for."""

    def __init__(self) -> None:
        self.device, self.counts_flop = torch.device("cpu"), False
        self.logged: list[float] = []

    def log(self, name: str, value: float, batch_size: int) -> None:
        assert name == "mfu"
        self.logged.append(value)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def test_mfu_is_the_counted_flop_over_time(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    task: Any = Task()
    run: Any = SimpleNamespace(global_step=0, log_every_n_steps=2)
    callback = Throughput(10e12)
    with caplog.at_level(logging.INFO):
        callback.on_fit_start(run, task)
    assert task.counts_flop
    assert "forward 2 FLOP a parameter and token" in caplog.text
    callback.on_train_start(run, task)
    for step in (0, 1, 1, 2):  # two micro-batches a step; logged at the second step
        clock.now += 1.0
        callback.on_train_batch_start(run, task, None, 0)
        run.global_step = step
        callback.on_train_batch_end(run, task, None, {"flop": 3e12}, 0)
        callback.on_validation_start(run, task)
        clock.now += 50.0  # does not count
        callback.on_train_batch_start(run, task, None, 0)
    assert task.logged == pytest.approx([4 * 3e12 / 4.0 / 10e12])


def test_a_task_that_does_not_count_has_no_mfu(clock: Clock) -> None:
    task: Any = Task()
    run: Any = SimpleNamespace(global_step=0, log_every_n_steps=1)
    callback = Throughput(10e12)
    callback.on_train_start(run, task)
    for counted in ({"flop": 1e12}, {"flop": None}, [1]):
        run.global_step += 1
        clock.now += 1.0
        callback.on_train_batch_end(run, task, None, counted, 0)
    assert task.logged == pytest.approx([0.1])


def test_peaks_of_known_devices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_peak(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert device_peak(torch.device("cuda")) == 989.4e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Radeon VII")
    assert device_peak(torch.device("cuda")) is None


@pytest.mark.parametrize("task", CASES)
def test_a_run_on_a_known_gpu_writes_it_down(
    task: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = CASES[task].prepare(tiny, tmp_path)
    handlers = logging.getLogger().handlers[:]

    def mfu(output: Path) -> list[float | None]:
        try:
            fit.main([*fit_arguments(options, output), *batch(4, 1), "--trainer.max_steps=2"])
        finally:
            logging.getLogger().handlers[:] = handlers
        [path] = (output / "logs").glob("*/metrics.jsonl")
        events = [json.loads(line) for line in path.read_text().splitlines()]
        return [event["mfu"] for event in events if event["event"] == "train"]

    assert mfu(tmp_path / "unknown") == [None, None]
    monkeypatch.setattr(fit, "device_peak", lambda device: 1e12)
    known = mfu(tmp_path / "known")
    assert len(known) == 2
    assert all(value is not None and 0 < value < 1 for value in known)
