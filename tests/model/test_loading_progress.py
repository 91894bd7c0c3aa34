"""Loading tells what, how far and how long, by a clock that the test moves; what is quick is quiet."""

import logging
from pathlib import Path

import pytest
import torch
from transformers.utils import logging as transformers_logging

from lavic.model import loading_progress
from lavic.model.loading import BaseModel, load_llava
from lavic.model.loading_progress import BETWEEN, telling


class Clock:
    """Moves by so many seconds at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == loading_progress.__name__]


def test_a_slow_loading_tells_how_far_it_is(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with telling(str(tiny), Clock(BETWEEN / 4)):
        assert list(transformers_logging.tqdm(dict.fromkeys("abcdefghijkl").items(), desc="Loading weights"))
    lines = said(caplog)
    assert [line.partition(":")[2] for line in lines[:-1]] == [
        " 3 of 12 tensors after 20 s.", " 7 of 12 tensors after 40 s.", " 11 of 12 tensors after 60 s.",
    ]  # fmt: skip
    assert lines[-1] == f"Loaded {tiny} in 65 s."


def test_a_large_one_is_named_before_it_is_read(
    tiny: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(loading_progress, "LARGE", 1000)
    load_llava(BaseModel(str(tiny)), torch.device("cpu"))
    first, last = said(caplog)
    assert first.startswith("Loading 0.0 GiB of weights from ")
    assert last.startswith(f"Loaded {tiny} in ")


def test_a_small_one_is_quiet_and_the_hook_is_gone(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    load_llava(BaseModel(str(tiny)), torch.device("cpu"))
    assert not said(caplog)
    assert transformers_logging.set_tqdm_hook(None) is None


def test_transformers_counts_the_weights_through_the_hook(
    tiny: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(loading_progress, "BETWEEN", 0.0)
    load_llava(BaseModel(str(tiny)), torch.device("cpu"))
    assert sum(" tensors after " in line for line in said(caplog)) > 10
