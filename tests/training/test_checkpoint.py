"""A run that is cut off anywhere and resumed ends with the same bits as one that was not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lavic.errors import UserError
from lavic.training.checkpoint import TrainableCheckpoint, WholeFileIO, checkpoint_to_resume
from lavic.training.resuming import LAST
from lavic.training.step_seeds import StepSeeds
from tests.conftest import Described
from tests.training import command_line
from tests.training.small_run import SmallTask, trainer


class CutOffError(Exception):
    pass


def fit(output_dir: Path, task: SmallTask, **options: Any) -> SmallTask:
    saving = options.pop("saving", {"every_n_steps": 1})
    last = checkpoint_to_resume(output_dir, resume=True)
    run = trainer(output_dir, [StepSeeds(3), TrainableCheckpoint(**saving)], **options)
    run.fit(task, ckpt_path=last, weights_only=True)
    return task


def kill_at(stage: str, call: int) -> Any:
    calls = {"train": 0, "validation": 0}

    def fail(here: str, task: SmallTask, batch_idx: int, loss: Any) -> Any:
        if not task.trainer.sanity_checking:
            calls[here] += 1
        if here == stage and calls[here] == call:
            raise CutOffError
        return loss

    return fail


def by_step(*tasks: SmallTask, name: str = "losses") -> dict[int, list[float]]:
    """The losses of every step; a resumed run's replace those of the run that was cut off."""
    found: dict[int, list[float]] = {}
    for task in tasks:
        steps: dict[int, list[float]] = {}
        for step, loss in getattr(task, name):
            steps.setdefault(step, []).append(loss)
        found.update(steps)
    return found


VARIANTS: dict[str, dict[str, Any]] = {
    "one validation an epoch": {},
    "validation amid the epoch": {"val_check_interval": 4},
    "validation amid a step": {"val_check_interval": 3},
    "no validation": {"limit_val_batches": 0},
    "epoch ends amid an accumulation": {"accumulate_grad_batches": 5},
    "rare checkpoints": {"saving": {"every_n_steps": 4}},
    "maximum of steps": {"max_steps": 15, "max_epochs": -1},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_runs_equal_uninterrupted_ones(tmp_path: Path, variant: str) -> None:
    options = VARIANTS[variant]
    whole = fit(tmp_path / "whole", SmallTask(), **options)
    cuts = [("train", call) for call in (1, 5, 8, 12, 13, 18, 36) if call <= len(whole.losses)]
    cuts += [("validation", call) for call in (1, 3, 5, 9) if call <= 3 * len(whole.val_losses)]
    for stage, call in cuts:
        output_dir = tmp_path / f"{stage}{call}"
        cut_off = SmallTask(fail=kill_at(stage, call))
        with pytest.raises(CutOffError):
            fit(output_dir, cut_off, **options)
        resumed = fit(output_dir, SmallTask(), **options)
        assert by_step(cut_off, resumed) == by_step(whole), (stage, call)
        validated = by_step(cut_off, resumed, name="val_losses")
        assert validated == by_step(whole, name="val_losses"), (stage, call)
        for name, parameter in whole.named_parameters():
            assert torch.equal(parameter, resumed.get_parameter(name)), (stage, call, name)


def test_a_validation_that_was_cut_off_is_done_once_more_and_not_again_after_the_next_cut(tmp_path: Path) -> None:
    options = {"val_check_interval": 4}
    whole = fit(tmp_path / "whole", SmallTask(), **options)
    parts = [SmallTask(fail=kill_at("validation", 2)), SmallTask(fail=kill_at("train", 2)), SmallTask()]
    for part in parts[:2]:
        with pytest.raises(CutOffError):
            fit(tmp_path / "parts", part, **options)
    fit(tmp_path / "parts", parts[2], **options)
    assert by_step(*parts, name="val_losses") == by_step(whole, name="val_losses")
    assert sum(len(part.val_losses) for part in parts) == len(whole.val_losses)
    assert by_step(*parts) == by_step(whole)


def test_resuming_a_finished_run_trains_no_step_and_more_epochs_continue_it(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", SmallTask(), max_epochs=4)
    fit(tmp_path / "parts", SmallTask(), max_epochs=2)
    again = fit(tmp_path / "parts", SmallTask(), max_epochs=2)
    assert again.losses == []
    longer = fit(tmp_path / "parts", SmallTask(), max_epochs=4)
    steps = by_step(whole)
    assert by_step(longer) == {step: steps[step] for step in steps if step >= 12}


def test_workers_that_load_ahead_do_not_move_the_position(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", SmallTask())
    cut_off = SmallTask(workers=1, fail=kill_at("train", 20))
    with pytest.raises(CutOffError):
        fit(tmp_path / "cut", cut_off)
    resumed = fit(tmp_path / "cut", SmallTask(workers=1))
    assert by_step(cut_off, resumed) == by_step(whole)


def test_the_file_holds_trainable_parameters_only_and_loads_as_data(tmp_path: Path) -> None:
    fit(tmp_path, SmallTask())
    checkpoint = torch.load(tmp_path / LAST, weights_only=True)
    assert set(checkpoint["state_dict"]) == {"layer.1.weight", "layer.1.bias"}
    assert list(tmp_path.glob("*.partial")) == []


def test_other_trainable_parameters_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, SmallTask(), max_epochs=1)
    other = SmallTask()
    other.layer[1].bias.requires_grad_(False)
    with pytest.raises(UserError, match=r"layer\.1\.bias is only in the file"):
        fit(tmp_path, other)


def test_another_accumulation_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, SmallTask(), max_epochs=1)
    with pytest.raises(UserError, match="accumulate_grad_batches 2, this run has 3"):
        fit(tmp_path, SmallTask(), accumulate_grad_batches=3)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read"):
        fit(tmp_path, SmallTask())


def test_a_failed_save_keeps_the_last_file(tmp_path: Path) -> None:
    path = tmp_path / LAST
    WholeFileIO().save_checkpoint({"step": torch.tensor(1)}, path)
    with pytest.raises(AttributeError):
        WholeFileIO().save_checkpoint({"step": lambda: None}, path)  # cannot be pickled
    assert torch.load(path, weights_only=True) == {"step": torch.tensor(1)}
    assert [entry.name for entry in tmp_path.iterdir()] == [LAST]


def test_resume_without_a_checkpoint_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert checkpoint_to_resume(tmp_path, resume=True) is None
    assert "starting afresh" in caplog.text


def test_an_interval_between_validations_longer_than_an_epoch_is_the_epoch(
    tiny: Path, described: Described, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    said = command_line.fit(tiny, described, output, "--trainer.val_check_interval=1000", "--trainer.max_epochs=2")
    assert "fewer than val_check_interval (1000)" in said
    assert said.count("val_loss") >= 2
    assert (output / command_line.ADAPTER / "adapter_model.safetensors").is_file()
