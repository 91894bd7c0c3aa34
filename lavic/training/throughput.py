"""Model FLOP utilisation: how much of the GPU's dense 16-bit throughput the method's own work reaches."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from lavic.cost.gpus import known_gpu

log = logging.getLogger(__name__)

RULE = (
    "MFU counts what the method needs with frozen weights: forward 2 FLOP a parameter and token, backward 2 more "
    "for activations where a gradient passes, weights' gradients for the trained weights alone, vision and language "
    "counted separately; padding and recomputation are not counted."
)


def device_peak(device: torch.device) -> float | None:
    """A device's dense 16-bit FLOP a second; None where it is not known."""
    gpu = known_gpu(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return gpu.tflops * 1e12 if gpu else None


class Throughput(Callback):
    """Logs `mfu`, this process's, at every `log_every_n_steps`-th optimizer step.

    It asks the task to note each batch's FLOP (`Task.step_flop`), which is done on the host, and waits for the device
    at those steps only. List it before `RunLog`, which writes the number to metrics.jsonl beside samples/s.

    Args:
        peak: the device's dense 16-bit FLOP a second.
    """

    def __init__(self, peak: float) -> None:
        self.peak = peak

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says the rule once, and asks the task to count."""
        task: Any = pl_module
        task.counts_flop = True
        log.info("%s MFU here: of %.1f TFLOP/s dense.", RULE, self.peak / 1e12)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the first interval."""
        self._step = trainer.global_step
        self._paused: float | None = None
        self._start()

    def _start(self) -> None:
        self._since, self._apart = time.perf_counter(), 0.0
        self._flop: float | None = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the batch, and logs where an optimizer step is due to be logged."""
        flop = batch.get("flop") if isinstance(batch, dict) else None
        self._flop = None if flop is None or self._flop is None else self._flop + flop
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if not stepped or trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        if self._flop is not None:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            seconds = time.perf_counter() - self._since - self._apart
            pl_module.log("mfu", self._flop / seconds / self.peak, batch_size=1)
        self._start()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is not training's time."""
        self._paused = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leaves out the time since a validation began."""
        if self._paused is not None:
            self._apart += time.perf_counter() - self._paused
            self._paused = None
