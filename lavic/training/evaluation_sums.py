"""Sums over an evaluation's batches, brought together over all processes at its end."""

from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor


class EvaluationSums(pl.LightningModule):
    """Named sums in float64 on the device. (torchmetrics' sums drop what is not finite unless told otherwise, and
    would be a collective each; here all are one.)"""

    def start_sums(self, names: Sequence[str]) -> None:
        """Sets the named sums to zero; every process names the same."""
        self._sums = dict.fromkeys(names, torch.zeros((), dtype=torch.float64, device=self.device))

    def add(self, **values: Tensor | float) -> None:
        """Adds to the sums."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value

    def total_sums(self) -> dict[str, float]:
        """The sums over all processes."""
        reduced = self.trainer.strategy.reduce(torch.stack(list(self._sums.values())), reduce_op="sum")
        return dict(zip(self._sums, (float(value) for value in reduced), strict=True))
