"""A step that is not finite changes nothing; several in a row, or no gain for long, end the run."""

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lavic.errors import UserError
from lavic.training.checkpoint import TrainableCheckpoint
from lavic.training.early_stop import EarlyStop
from lavic.training.guards import SkipNonFiniteSteps
from lavic.training.resuming import LAST
from lavic.training.run_log import RunLog
from tests.training.small_run import SmallTask, trainer


class Weights(pl.Callback):
    """Keeps parameters and optimizer state after every optimizer step."""

    def __init__(self) -> None:
        self.after: dict[int, Any] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        state = {k: v.clone() for k, v in pl_module.state_dict().items()}
        self.after[trainer.global_step] = state, copy.deepcopy(trainer.optimizers[0].state_dict()["state"])


def nan_in_steps(*steps: int) -> Any:
    def fail(stage: str, task: SmallTask, batch_idx: int, loss: Any) -> Any:
        return loss * float("nan") if stage == "train" and task.global_step in steps else loss

    return fail


def test_a_skipped_step_changes_neither_weights_nor_moments(tmp_path: Path) -> None:
    weights, guard = Weights(), SkipNonFiniteSteps(stop_after=3)
    trainer(tmp_path, [guard, weights], max_epochs=1).fit(SmallTask(fail=nan_in_steps(2, 3)))
    assert guard.skipped == 2
    assert guard.in_a_row == 0
    (before, moments), (after, moments_after) = weights.after[2], weights.after[4]
    assert all(torch.equal(before[name], after[name]) for name in before)
    for number, state in moments.items():
        assert all(torch.equal(state[name], moments_after[number][name]) for name in state)
    assert not torch.equal(weights.after[5][0]["layer.1.weight"], after["layer.1.weight"])


def test_several_in_a_row_end_the_run_with_their_samples_and_keep_the_checkpoint(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path / "logs", "training_x")
    callbacks = [run_log, SkipNonFiniteSteps(stop_after=3), TrainableCheckpoint(every_n_steps=1)]
    with pytest.raises(UserError, match=r"3 steps in a row .* row \d+, row \d+, row \d+, row \d+\."):
        trainer(tmp_path, callbacks).fit(SmallTask(fail=nan_in_steps(3, 4, 5, 6)))
    weights = torch.load(tmp_path / LAST, weights_only=True)["state_dict"]["layer.1.weight"]
    assert weights.isfinite().all()
    skips = [line for line in (run_log.directory / "metrics.jsonl").read_text().splitlines() if '"skip"' in line]
    assert len(skips) == 3


def test_the_norm_is_the_gradients_norm(tmp_path: Path) -> None:
    options = {"max_steps": 1, "limit_val_batches": 0, "gradient_clip_val": None}
    task, run = SmallTask(), trainer(tmp_path, [SkipNonFiniteSteps()], **options)
    run.fit(task)
    gradients = [p.grad.flatten() for p in task.layer.parameters() if p.grad is not None]
    assert len(gradients) == len(list(task.layer.parameters()))
    expected = torch.cat(gradients).norm()
    assert torch.isclose(expected, run.callback_metrics["grad_norm"])


class ValLosses(SmallTask):
    """Validates to the given losses."""

    def __init__(self, *losses: float) -> None:
        super().__init__()
        self.given = list(losses)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log("val_loss", self.given.pop(0))


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({}, 8),
        ({"patience": 2}, 4),
        ({"patience": 3}, 5),
        ({"patience_share": 0.25}, 4),  # of 48 steps: 12 after the best, at step 12, is 24
        ({"patience_share": 0.4}, 6),
        ({"patience": 2, "min_delta": 0.2}, 3),
    ],
)
def test_early_stop(tmp_path: Path, options: dict[str, Any], epochs: int) -> None:
    run = trainer(tmp_path, [EarlyStop(**options)], max_epochs=8)
    run.fit(ValLosses(1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95))
    assert run.current_epoch == epochs


def test_early_stop_counts_on_after_a_resume(tmp_path: Path) -> None:
    first = trainer(tmp_path, [EarlyStop(patience=3), TrainableCheckpoint()], max_epochs=3)
    first.fit(ValLosses(1.0, 2.0, 2.0))
    second = trainer(tmp_path, [EarlyStop(patience=3), TrainableCheckpoint()], max_epochs=9)
    second.fit(ValLosses(2.0, 2.0, 2.0), ckpt_path=tmp_path / LAST)
    assert second.current_epoch == 4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EarlyStop(patience=0), "patience is 0"),
        (lambda: EarlyStop(patience_share=1.5), "above 0 and below 1"),
        (lambda: SkipNonFiniteSteps(stop_after=0), "stop_after is 0"),
        (lambda: TrainableCheckpoint(every_n_steps=-1), "must not be negative"),
    ],
)
def test_contradictions_fail_at_construction(make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()
