"""Writes what `predict` yields, a line a sample, so that a killed run can go on behind its last whole line."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BasePredictionWriter

from lavic.files.json_entries import Entry, read_entries
from lavic.training.partial_rows import PartialRows

log = logging.getLogger(__name__)

NAME = "predictions.jsonl"


class PredictionWriter(BasePredictionWriter):
    """`predictions.jsonl` in the output directory; with several processes, one file for each, numbered by rank.

    Until all is answered the files are called `partial_predictions.jsonl`.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self.resume = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Removes what an earlier run has left half done, or makes it ready for more."""
        if stage == "predict":
            rows = _rows_of(trainer)
            if trainer.is_global_zero:
                rows.go_on() if self.resume else rows.discard()
            trainer.strategy.barrier("predictions")
            rows.add([])

    def write_on_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, prediction: Any, *args: Any
    ) -> None:
        """Adds a batch's samples."""
        _rows_of(trainer).add(prediction)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the files their whole names."""
        trainer.strategy.barrier("predicted")
        if trainer.is_global_zero:
            _rows_of(trainer).complete()
        trainer.strategy.barrier("completed")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Says where the answers are that were given before a run's end."""
        file = _rows_of(trainer).path
        if trainer.predicting and file.is_file() and file.stat().st_size:
            log.warning("The run has not come to its end; the answers given so far are in %s.", file)


def begin(trainer: pl.Trainer, resume: bool) -> None:
    """Says whether the coming predict goes on behind an earlier one's last answer."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PredictionWriter):
            callback.resume = resume


def answered(folder: Path) -> Counter[str]:
    """How many samples of each ID were answered in a folder before, whichever process wrote them."""
    found: Counter[str] = Counter()
    for path in PartialRows(folder / NAME).files():
        for entry in read_entries(path):
            if isinstance(entry, Entry) and isinstance(entry.value, dict):
                found[str(entry.value.get("id", entry.value.get("question_id")))] += 1
    return found


def _rows_of(trainer: pl.Trainer) -> PartialRows:
    return PartialRows(Path(trainer.default_root_dir) / NAME, trainer.global_rank, trainer.world_size)
