"""Ends training when the validation has not got better for a while."""

import logging
import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lavic.errors import UserError
from lavic.ranges import check_ranges
from lavic.training.protocols import report_of

log = logging.getLogger(__name__)

NEVER = 10**9


class EarlyStop(EarlyStopping):
    """Stops after so many validations, or so large a share of all steps, without a better value.

    Better means better by more than `min_delta`; the share is counted from the step of the best value so far.

    Args:
        patience: validations without a better value; null never stops for their number.
        patience_share: share of all optimizer steps without a better value (0 to 1); null never stops for it.
        min_delta: in the metric's unit, by how much a value must be better to count.
        monitor: one of the task's metrics that has a better direction, such as val_loss; null takes the one by which
            the task keeps its best adapter.
    """

    def __init__(
        self,
        patience: int | None = None,
        patience_share: float | None = None,
        min_delta: float = 0.0,
        monitor: str | None = None,
    ) -> None:
        check_ranges(patience=patience, patience_share=patience_share, min_delta=min_delta)
        super().__init__(
            monitor or "val_loss", min_delta, patience or NEVER, strict=False, check_on_train_epoch_end=False
        )
        self.chosen = monitor
        self.patience_share = patience_share
        self.best_step, self.stopped = 0, False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Takes the metric, and its better direction, from the task."""
        super().setup(trainer, pl_module, stage)
        report = report_of(pl_module)
        metric = report.metric(self.chosen or report.monitored)
        if metric.better is None:
            raise UserError(f"early_stop.monitor is {metric.name}, of which neither more nor less is better.")
        self.monitor, self.mode = metric.name, {"lower": "min", "higher": "max"}[metric.better]
        self.min_delta = abs(self.min_delta) * (1 if self.mode == "max" else -1)
        if not torch.isfinite(self.best_score):
            self.best_score = torch.tensor(metric.worst)

    def state_dict(self) -> dict[str, Any]:
        return {
            "wait_count": self.wait_count,
            "best_score": float(self.best_score),
            "best_step": self.best_step,
            "stopped": self.stopped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wait_count, self.best_step = state_dict["wait_count"], state_dict["best_step"]
        self.best_score, self.stopped = torch.tensor(state_dict["best_score"]), state_dict["stopped"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A run that was killed after the decision and before its end keeps to it, unless patience was raised.
        trainer.should_stop = self.stopped and self._out_of_patience(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._should_skip_check(trainer) or getattr(trainer.fit_loop.epoch_loop, "is_for_the_end", False):
            return  # what ends here may be resumed, and then has to stop where it would have without the end
        super().on_validation_end(trainer, pl_module)
        if self.wait_count == 0:
            self.best_step = trainer.global_step
        trainer.should_stop = trainer.should_stop or self._out_of_patience(trainer)
        self.stopped = trainer.should_stop
        if self.stopped:
            log.info(
                "Stopping early: %s has not been better than %.4f (step %d) since.",
                self.monitor, self.best_score, self.best_step,
            )  # fmt: skip

    def _out_of_patience(self, trainer: pl.Trainer) -> bool:
        if self.wait_count >= self.patience:
            return True
        if self.patience_share is None:
            return False
        return trainer.global_step - self.best_step >= math.ceil(
            self.patience_share * trainer.estimated_stepping_batches
        )
