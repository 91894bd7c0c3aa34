"""A callback that ends training after a step, as Lightning's timer for `max_time` does, but by no clock."""

from typing import Any

import lightning.pytorch as pl


class StopAfter(pl.Callback):
    """Asks the trainer to stop once `step` optimizer steps are made."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.step:
            trainer.should_stop = True
