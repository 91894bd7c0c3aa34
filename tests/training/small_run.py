"""A LightningModule with dropout, a frozen layer and a scheduler, and its data; small enough for a test."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from lavic.batching.resumable_loader import ResumableLoader


class Numbers(Dataset[dict[str, Any]]):
    """Micro-batches of sample rows; `fail` may raise or kill when a row is read."""

    def __init__(self, size: int, fail: Any = None) -> None:
        self.inputs = torch.randn(size, 4, generator=torch.Generator().manual_seed(1))
        self.fail = fail

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: list[int]) -> dict[str, Any]:
        if self.fail is not None:
            self.fail(rows)
        return {"inputs": self.inputs[rows], "rows": rows, "attention_mask": torch.ones(len(rows), 4)}


class ShuffledPairs(Sampler[list[int]]):
    """Pairs of rows in an order that the epoch fixes."""

    def __init__(self, size: int) -> None:
        self.size, self.epoch = size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // 2

    def __iter__(self) -> Any:
        order = np.random.default_rng([7, self.epoch]).permutation(self.size)
        yield from order.reshape(-1, 2).tolist()


class SmallTask(pl.LightningModule):
    """Learns to halve its inputs; records every micro-batch's loss by (step, loss)."""

    def __init__(self, size: int = 24, workers: int = 0, fail: Any = None, fail_in_worker: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(4, 8).requires_grad_(False)
        self.layer = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 4))
        self.size, self.workers, self.fail, self.fail_in_worker = size, workers, fail, fail_in_worker
        self.losses: list[tuple[int, float]] = []
        self.val_losses: list[tuple[int, float]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        if self.fail is not None:
            loss = self.fail("train", self, batch_idx, loss)
        self.losses.append((self.global_step, loss.item()))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.fail is not None:
            self.fail("validation", self, batch_idx, None)
        torch.rand(3)  # validation may draw random numbers
        self.log("val_loss", self._loss(batch), on_epoch=True, batch_size=2, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.val_losses.append((self.global_step, self.trainer.callback_metrics["val_loss"].item()))

    def _loss(self, batch: dict[str, Any]) -> Tensor:
        inputs = batch["inputs"]
        loss: Tensor = (self.layer(self.frozen(inputs)) - inputs / 2).square().mean()
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.01)
        assert self.trainer.estimated_stepping_batches > 0  # makes the loader before a position is restored
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=30)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Any]:
        data = Numbers(self.size, self.fail_in_worker)
        return ResumableLoader(data, ShuffledPairs(self.size), num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Numbers(6), batch_size=None, sampler=[[0, 1], [2, 3], [4, 5]])


def trainer(output_dir: Path, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    """A quiet CPU trainer: 3 epochs of 12 micro-batches, 2 to a step, validated after each epoch."""
    defaults: dict[str, Any] = {
        "max_epochs": 3,
        "accumulate_grad_batches": 2,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
        "log_every_n_steps": 1,
        "gradient_clip_val": 1.0,
        "accelerator": "cpu",
        "devices": 1,
        "use_distributed_sampler": False,
    }
    return pl.Trainer(default_root_dir=output_dir, callbacks=callbacks, **{**defaults, **options})
