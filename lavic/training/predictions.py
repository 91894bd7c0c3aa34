"""Writes what `predict` yields, a line a sample."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BasePredictionWriter


class PredictionWriter(BasePredictionWriter):
    """`predictions.jsonl` in the output directory; with several processes, one file for each, numbered by rank."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the file anew."""
        _file(trainer).unlink(missing_ok=True)

    def write_on_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, prediction: Any, *args: Any
    ) -> None:
        """Adds a batch's samples."""
        with _file(trainer).open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in prediction)


def _file(trainer: pl.Trainer) -> Path:
    rank = f".{trainer.global_rank}" if trainer.world_size > 1 else ""
    return Path(trainer.default_root_dir) / f"predictions{rank}.jsonl"
