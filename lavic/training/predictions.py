"""Writes what `predict` yields, a line a sample, so that a killed run can go on behind its last whole line."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BasePredictionWriter

from lavic.files import write_text
from lavic.files.json_entries import Entry, read_entries


class PredictionWriter(BasePredictionWriter):
    """`predictions.jsonl` in the output directory; with several processes, one file for each, numbered by rank."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def write_on_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, prediction: Any, *args: Any
    ) -> None:
        """Adds a batch's samples."""
        with _file_of(trainer, trainer.global_rank).open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in prediction)


def begin(trainer: pl.Trainer, resume: bool) -> None:
    """Makes this process's file ready: without `resume` there is none, with it all its lines are whole."""
    file, ranks = _file_of(trainer, trainer.global_rank), range(trainer.world_size)
    if not resume:
        file.unlink(missing_ok=True)
        if trainer.is_global_zero:
            for path in set(file.parent.glob("predictions*.jsonl")) - {_file_of(trainer, rank) for rank in ranks}:
                path.unlink(missing_ok=True)  # of an earlier run on another number of processes
    elif file.is_file():
        lines = file.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            write_text(file, b"".join(lines[:-1]).decode())


def answered(folder: Path) -> Counter[str]:
    """How many samples of each ID stand in the files of a folder, whichever process wrote them."""
    found: Counter[str] = Counter()
    for path in folder.glob("predictions*.jsonl"):
        for entry in read_entries(path):
            if isinstance(entry, Entry) and isinstance(entry.value, dict):
                found[str(entry.value.get("id", entry.value.get("question_id")))] += 1
    return found


def _file_of(trainer: pl.Trainer, rank: int) -> Path:
    number = f".{rank}" if trainer.world_size > 1 else ""
    return Path(trainer.default_root_dir) / f"predictions{number}.jsonl"
