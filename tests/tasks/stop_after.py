"""Callbacks that end training, or spoil it, at a known step: no test waits for a clock."""

import os
import signal
from typing import Any

import lightning.pytorch as pl
import torch


class StopAfter(pl.Callback):
    """Asks the trainer to stop once `step` optimizer steps are made, as Lightning's timer for `max_time` does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.step:
            trainer.should_stop = True


class TerminateAfterStep(pl.Callback):
    """Sends this process SIGTERM after the first micro-batch's step begins."""

    def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == 0:
            os.kill(os.getpid(), signal.SIGTERM)


class TerminateInValidation(pl.Callback):
    """Sends this process SIGTERM amid a validation."""

    def on_validation_batch_start(self, *rest: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class BreakWeights(pl.Callback):
    """Makes what was trained not a number before the validation."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with torch.no_grad():
            for parameter in pl_module.parameters():
                if parameter.requires_grad:
                    parameter.fill_(float("nan"))
