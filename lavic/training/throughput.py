"""Model FLOP utilisation: how much of the GPU's dense 16-bit throughput the method's own work reaches."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from lavic.cost.counting import Sample, step_flop
from lavic.cost.gpus import known_gpu

log = logging.getLogger(__name__)

RULE = (
    "MFU counts what the method needs with frozen weights: forward 2 FLOP a parameter and token, backward 2 more "
    "for activations where a gradient passes, weights' gradients for the trained weights alone, vision and language "
    "counted separately; padding and recomputation are not counted."
)


class Throughput(Callback):
    """Logs `mfu` at every `log_every_n_steps`-th optimizer step, where the GPU's throughput is known.

    What a batch holds is added up on the device and read at those steps only. List it before `RunLog`, which writes
    the number to metrics.jsonl beside samples/s, tokens/s, the share of time waiting for data and the peak memory.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says the rule once, and what the GPU can do."""
        device = trainer.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        gpu = known_gpu(name)
        self.peak = gpu.tflops * 1e12 if gpu else None
        peak = f"{gpu.tflops} TFLOP/s dense on {name}" if gpu else f"unknown: the throughput of '{name}' is not known"
        log.info("%s MFU here: %s.", RULE, peak)
        self._step = trainer.global_step
        self._paused: float | None = None
        self._start(pl_module.device)

    def _start(self, device: torch.device) -> None:
        self._since, self._apart = time.perf_counter(), 0.0
        self._samples = self._views = self._targets = self._prefix = 0
        self._tokens = torch.zeros(2, dtype=torch.int64, device=device)  # all, and before the first placeholder

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the batch, and logs where an optimizer step is due to be logged."""
        if self.peak is None or "split" not in batch:
            return
        split, rows = batch["split"], len(batch["input_ids"])
        self._samples += rows
        self._views += len(batch["views"])
        self._targets += len(split.predicting)
        self._prefix += rows * split.prefix_length
        self._tokens += torch.stack([batch["attention_mask"].sum(), split.positions[:, 0].sum()])
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if stepped and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            task: Any = pl_module
            flop = step_flop(task.llava.config, task.trainable, self.mean_sample(), task.speedups).total
            seconds = time.perf_counter() - self._since - self._apart
            pl_module.log("mfu", flop * self._samples / seconds / self.peak)
            self._start(pl_module.device)

    def mean_sample(self) -> Sample:
        """The mean of the samples since the last reading; waits for the device."""
        tokens, before = (round(total / self._samples) for total in self._tokens.tolist())
        views, targets, prefix = (round(total / self._samples) for total in (self._views, self._targets, self._prefix))
        return Sample(views, tokens, prefix, before, targets)

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
