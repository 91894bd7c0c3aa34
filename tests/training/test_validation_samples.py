"""What a run shows of its validation samples, in W&B's own files of an offline run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.cases import CASES, fit_arguments
from tests.training.command_line import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("task", CASES)
def test_wandb_has_a_table_of_them_and_the_metrics(tiny: Path, tmp_path: Path, task: str) -> None:
    [config, *options] = fit_arguments(CASES[task].prepare(tiny, tmp_path), tmp_path / "out")[1:]
    both = [config, f"--config={ROOT}/configs/with/wandb.yaml", *options]
    done = subprocess.run(
        [sys.executable, "-m", "lavic", "fit", *both, "--data.init_args.batch_size=4"], cwd=tmp_path,
        env={**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "logs" / "wandb").glob("offline-run-*")
    for table in (tables := list(run.glob("files/media/table/samples*.table.json"))):
        found = json.loads(table.read_text())
        assert found["columns"][0] == "image"
        assert found["columns"][-2:] == ["target", "generated"]
        assert len(found["data"]) == 4
        assert any(row[0] for row in found["data"])
    assert len(tables) == (task != "recommendation")  # which shows no samples: its answers are IDs
    logged = b"".join(path.read_bytes() for path in run.glob("*.wandb"))
    assert b"val_loss" in logged
    assert (b"val_exact_match" in logged) == (task == "vqa")
