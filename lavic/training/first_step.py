"""Says what a run's first step took, and when its last will end: the tenth may be hours away."""

import logging
import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl

from lavic.training.run_log import record

log = logging.getLogger(__name__)


class FirstStep(pl.Callback):
    """Logs a line after the first optimizer step of this process, and a `first_step` event for the monitor."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock; waiting for the first samples counts."""
        total = trainer.estimated_stepping_batches  # an all-reduce: on every process
        self._last = int(total) if total < float("inf") else None
        self._step, self._since = trainer.global_step, time.perf_counter()
        self._told = False

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        """Tells it, once."""
        if self._told or trainer.global_step == self._step:
            return
        self._told, seconds = True, time.perf_counter() - self._since
        left = None if self._last is None else max(0, self._last - trainer.global_step) * seconds
        record(trainer, "first_step", step=trainer.global_step, seconds=seconds, seconds_left=left)
        log.info("The first step took %.1f s%s.", seconds, "" if left is None else self._until(left))

    def _until(self, seconds: float) -> str:
        end = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + seconds))
        how_long = timedelta(seconds=round(seconds))
        return f"; at that pace the last of {self._last} ends at {end}, in {how_long}, validations not counted"
