"""MFU: the method's own FLOP over time and the GPU's throughput."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lavic.cost.counting import Sample, step_flop
from lavic.cost.default_config import default_config
from lavic.cost.gpus import Gpu
from lavic.model.parts import TrainableParts
from lavic.model.prefix_reuse import split_batch
from lavic.model.speedups import Speedups
from lavic.training import throughput
from lavic.training.throughput import Throughput
from tests.model.toy import PLACEHOLDERS, PREFIX, ragged_batch


class Task:
    """As much of the task as the callback asks for."""

    def __init__(self) -> None:
        self.llava = SimpleNamespace(config=default_config())
        self.trainable, self.speedups, self.device = TrainableParts(), Speedups(), torch.device("cpu")
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: float) -> None:
        self.logged[name] = value


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def trainer() -> Any:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(strategy=strategy, global_step=0, log_every_n_steps=1)


def test_mfu_is_the_counted_flop_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, task, run, callback = Clock(), Task(), trainer(), Throughput()
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(throughput, "known_gpu", lambda name: Gpu(tflops=10.0, gib=1, gb_per_s=1))
    batch: dict[str, Any] = ragged_batch((4, 1, 7), (9, 12, 6))
    batch["split"] = split_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=PREFIX)
    batch["views"] = torch.empty(15, 0)
    callback.on_train_start(run, task)  # type: ignore[arg-type]
    clock.now += 1.0
    callback.on_validation_start(run, task)  # type: ignore[arg-type]
    clock.now += 50.0  # does not count
    callback.on_train_batch_start(run, task, batch, 0)  # type: ignore[arg-type]
    clock.now += 3.0
    run.global_step = 1
    callback.on_train_batch_end(run, task, None, batch, 0)  # type: ignore[arg-type]
    # rows of 8 + title + 5 + 2 + target tokens: 28, 28 and 28; 27 targets; placeholders after 8 + 4 on average
    mean = Sample(views=5, tokens=28, prefix=8, before_placeholder=12, targets=9)
    flop = 3 * step_flop(default_config(), TrainableParts(), mean, Speedups()).total
    assert task.logged["mfu"] == pytest.approx(flop / 4.0 / 10e12)


def test_an_unknown_gpu_has_no_mfu_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    task, run, callback = Task(), trainer(), Throughput()
    with caplog.at_level(logging.INFO):
        callback.on_train_start(run, task)  # type: ignore[arg-type]
    assert "forward 2 FLOP a parameter and token" in caplog.text
    assert "the throughput of 'cpu' is not known" in caplog.text
    run.global_step = 1
    callback.on_train_batch_end(run, task, None, {"split": None}, 0)  # type: ignore[arg-type]
    assert task.logged == {}
