"""Whether the run has room, asked before minutes are spent on loading weights."""

import logging
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from lavic.cost.counting import trainable_parameters
from lavic.cost.memory import GIB, Precision, step_bytes
from lavic.errors import UserError
from lavic.model.loading import load_config

log = logging.getLogger(__name__)

# Float32 weights and AdamW's two moments in last.ckpt, weights again in the adapter; each also exists half-written.
DISK_BYTES_PER_PARAMETER = 2 * (12 + 4)


class Preflight(Callback):
    """Checks the output's disk and the GPU's free memory against what the configuration needs.

    It knows tasks that say what they train (`base` and `trainable`, as stage 1 does) and leaves others alone. Each
    process checks its own GPU, process 0 the disk. The GPU's need is the estimate of `python -m lavic plan`: the run
    is refused only if even the weights cannot be held, and warned of if the whole step probably does not fit.
    """

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if stage != "fit" or not (hasattr(pl_module, "base") and hasattr(pl_module, "trainable")):
            return
        base, trainable = pl_module.base, pl_module.trainable
        config = load_config(base.name)
        trained = sum(trainable_parameters(config, trainable).values())
        if trainer.is_global_zero:
            check_disk(Path(trainer.default_root_dir), DISK_BYTES_PER_PARAMETER * trained)
        device = trainer.strategy.root_device
        if device.type == "cuda":
            precision = Precision(weights=4 if base.dtype == "float32" else 2, nf4=base.quantization != "none")
            batch = trainer.datamodule.batch_size  # type: ignore[attr-defined]
            needed = step_bytes(config, trainable, precision, batch, None, pl_module.speedups, pl_module.checkpointing)
            weights = sum(needed[name] for name in ("vision_weights", "language_weights", "trainable_weights"))
            check_gpu(torch.cuda.mem_get_info(device)[0], weights, sum(needed.values()), str(device))


def check_disk(folder: Path, needed: float) -> None:
    """Raises a UserError where the folder's disk cannot hold `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"The disk of {folder} has {free / 1e6:.1f} MB free and the checkpoints need {needed / 1e6:.1f} MB;"
            " make room, or give another output directory."
        )


def check_gpu(free: float, weights: float, needed: float, device: str) -> None:
    """Raises a UserError where not even the weights fit into `free` bytes; warns where a step may not."""
    advice = "end other processes on it, or see `python -m lavic plan --config FILE` for what to change"
    if free < weights:
        raise UserError(
            f"{device} has {free / GIB:.1f} GiB free and the weights alone take {weights / GIB:.1f} GiB; {advice}."
        )
    if free < needed:
        log.warning(
            "%s has %.1f GiB free and a step takes about %.1f GiB; if memory runs out, %s.",
            device, free / GIB, needed / GIB, advice,
        )  # fmt: skip
