"""The short form of `benchmarks/kill_and_resume.py`."""

from pathlib import Path

import pytest

from benchmarks.kill_and_resume import TASKS, compare, differences


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, task: str) -> None:
    assert compare(tmp_path, kills=4, seed=1, samples=12, task=task) == []
    # and the comparison can fail
    metrics = next((tmp_path / "whole" / "logs").glob("*/metrics.jsonl"))
    metrics.write_text(metrics.read_text().replace('"train_loss": ', '"train_loss": 1'))
    assert differences(tmp_path / "whole", tmp_path / "parts") != []
