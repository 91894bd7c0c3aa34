"""C7: training ends at the first validation a tenth of the planned steps after the best value's."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lavic.training.early_stop import EarlyStop
from lavic.training.protocols import Metric, TaskReport

EVERY = 5  # steps between validations


class Scripted(pl.LightningModule):
    """Logs `values[k]` at its k-th validation; the last one from then on."""

    def __init__(self, values: list[float], better: Any) -> None:
        super().__init__()
        self.values, self.validations = values, 0
        self.report = TaskReport("t", "t", (Metric("score", "score", better=better),), monitored="score")
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.log("score", self.values[min(self.validations, len(self.values) - 1)])
        self.validations += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def steps(tmp_path: Path, values: list[float], better: str = "higher") -> int:
    loader: DataLoader[torch.Tensor] = DataLoader(torch.zeros(200, 1))  # type: ignore[arg-type]
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_steps=100, val_check_interval=EVERY, limit_val_batches=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        accelerator="cpu", callbacks=[EarlyStop(patience_share=0.1, min_delta=0.001)],
    )  # fmt: skip
    trainer.fit(Scripted(values, better), loader, loader)
    return trainer.global_step


@pytest.mark.parametrize(
    ("values", "ended"),
    [
        ([0.5], 15),  # best at step 5; 15 is the first validation 10 steps on
        ([0.5, 0.5009], 15),  # by less than the threshold
        ([0.5, 0.5011], 20),
        ([0.5, 0.4, 0.6], 25),  # better at step 15, where patience would have ended
        ([0.1 * k for k in range(1, 6)], 35),
    ],
)
def test_c7_a_constant_metric_stops_ten_steps_after_the_best(tmp_path: Path, values: list[float], ended: int) -> None:
    assert steps(tmp_path, values) == ended


def test_c7_a_loss_is_better_when_lower(tmp_path: Path) -> None:
    assert steps(tmp_path, [2.0, 1.9991], "lower") == 15
    assert steps(tmp_path, [2.0, 1.9989], "lower") == 20
    assert steps(tmp_path, [2.0, 3.0], "lower") == 15
