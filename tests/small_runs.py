"""Writes the files of a run as `lavic.training.run_log` does, without training one."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from lavic.runs.run_files import process_start
from lavic.tasks.distillation import Distillation


def write_run(logs: Path, run_id: str, events: list[dict[str, Any]], **about: Any) -> Path:
    """A run of this process, unless `about` says otherwise."""
    directory = logs / run_id
    directory.mkdir(parents=True)
    known = {
        "run_id": run_id,
        "pid": os.getpid(),
        "pid_start": process_start(os.getpid()),
        "host": socket.gethostname(),
        "started": time.time() - 100,
        "total_steps": 40,
        "epochs": 1,
        "continues": None,
        "train_samples": 320,
        "val_samples": 7,
        "skipped": {"broken image": 2, "no description": 1},
        "command": ["python", "-m", "lavic", "fit"],
        "versions": {"torch": "2.15.0"},
        "metrics": Distillation.report.described(),
        **about,
    }
    (directory / "run.json").write_text(json.dumps(known))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return directory


def train_event(step: int, loss: float, ago: float = 0.0) -> dict[str, Any]:
    return {
        "time": time.time() - ago, "event": "train", "step": step, "epoch": step / 40, "train_loss": loss, "lr": 5e-5,
        "grad_norm": 0.5, "samples_per_second": 3.25, "tokens_per_second": 780.0, "mfu": None, "data_wait": 0.04,
        "memory_gib": 17.5,
    }  # fmt: skip


def validation_event(step: int, loss: float) -> dict[str, Any]:
    return {
        "time": time.time(), "event": "validation", "step": step, "epoch": 1.0, "val_loss": loss, "samples": 7,
        "val_perplexity": 2.7**loss, "visual_gain": 0.31, "visual_gain_blank": 0.42,
    }  # fmt: skip
