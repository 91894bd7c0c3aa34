"""What stops a run, or a step of it, that would do harm."""

import logging
import math
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from lavic.errors import UserError
from lavic.ranges import check_ranges
from lavic.training.run_log import record

log = logging.getLogger(__name__)


class SkipNonFiniteSteps(Callback):
    """Leaves out an optimizer step whose gradient is not finite, and ends the run after several in a row.

    A skipped step changes nothing: neither parameters nor AdamW's moments nor its weight decay. The
    gradient's norm is logged as `grad_norm`. Reading it waits for the device once an optimizer step, not once
    a micro-batch.

    Args:
        stop_after: steps in a row after which the run ends, naming their samples.
    """

    def __init__(self, stop_after: int = 5) -> None:
        check_ranges(stop_after=stop_after)
        self.stop_after = stop_after
        self.in_a_row = self.skipped = 0
        self._rows: list[int] = []

    def state_dict(self) -> dict[str, int]:
        return {"in_a_row": self.in_a_row, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.in_a_row, self.skipped = state_dict["in_a_row"], state_dict["skipped"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._rows = []
        if isinstance(batch, dict) and "rows" in batch:
            self._rows += [int(row) for row in batch["rows"]]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if not gradients:  # DeepSpeed keeps them in buffers of its own
            return
        norm = _full(torch.nn.utils.get_total_norm(gradients)).item()
        if math.isfinite(norm):
            pl_module.log("grad_norm", norm, batch_size=1)
            self.in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)  # without a gradient, an optimizer leaves a parameter alone
        self.skipped += 1
        if _still_scaling_down(trainer):
            return
        self.in_a_row += 1
        names = self._sample_names(trainer)
        log.warning("Step %d is skipped: its gradient is not finite. Samples: %s", trainer.global_step, names)
        record(trainer, "skip", step=trainer.global_step, samples=names)
        if self.in_a_row >= self.stop_after:
            raise UserError(
                f"The gradients of {self.in_a_row} steps in a row were not finite; the last one's samples are"
                f" {', '.join(names)}. Look at them, or lower the learning rate, and go on with --resume."
            )

    def _sample_names(self, trainer: pl.Trainer) -> list[str]:
        """Of all processes: a gradient is the sum over them."""
        named = getattr(trainer.datamodule, "sample_names", None)  # type: ignore[attr-defined]
        names = named(self._rows) if named else [f"row {row}" for row in self._rows]
        if trainer.world_size == 1:
            return list(names)
        everywhere: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(everywhere, names)
        return [name for process in everywhere for name in process]


def _full(norm: Tensor) -> Tensor:
    """The norm of sharded gradients (FSDP2) over all processes."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _still_scaling_down(trainer: pl.Trainer) -> bool:
    """Under fp16 the first gradients overflow until the loss scale has come down: no fault of the samples."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.get_scale() > 1.0
