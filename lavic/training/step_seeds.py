"""Random numbers that belong to the optimizer step, not to what ran before it."""

import random

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback


class StepSeeds(Callback):
    """Seeds Python, NumPy and PyTorch from (seed, step, process) where an optimizer step begins.

    Dropout of step 1,000 is then the same whether the run reached it in one go, was killed and resumed,
    validated in between, or drew numbers elsewhere. A checkpoint needs no generator states, of one process or
    of many.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            seed_step(self.seed, trainer.global_step, trainer.global_rank)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds all generators of this process for one optimizer step."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))  # CPU and, lazily, every CUDA device
