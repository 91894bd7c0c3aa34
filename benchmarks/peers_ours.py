"""The clock of `python -m benchmarks peers` for `python -m lavic fit`."""

from typing import Any

import lightning.pytorch as pl

from benchmarks.turns import Clock


class Turns(pl.Callback):
    """A clock for Lightning, to be named on the command line of `python -m lavic fit`.

    Args:
        steps: optimizer steps of a turn.
    """

    def __init__(self, steps: int) -> None:
        self.clock = Clock(steps)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Waits for the first turn."""
        self.clock.wait()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Every batch is a step: gradients are not accumulated."""
        self.clock.step(float(outputs["loss"]))
