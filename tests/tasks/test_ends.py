"""Every task x every end of training: it is validated and leaves an adapter, or says why not; resuming is exact."""

from pathlib import Path

import pytest
import torch

from lavic.runs.run_files import find_run
from tests.tasks.cases import CASES, assert_refused, batch, fit_arguments
from tests.training.command_line import losses, run, validation

ENDS = {  # how training ends -> its options, and after which step; None: after all
    "max_steps": (("--trainer.max_steps=2",), 2),
    "between two epochs": (("--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=1"), None),
    "an odd number of epochs": (("--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=3"), None),
    "limit_train_batches": (("--trainer.limit_train_batches=2", "--trainer.check_val_every_n_epoch=5"), 4),
    "val_check_interval": (("--trainer.val_check_interval=2", "--trainer.max_epochs=1"), None),
    "a callback's stop": (
        (
            "--trainer.callbacks=tests.tasks.stop_after.StopAfter",
            "--trainer.callbacks.step=2",
            "--trainer.check_val_every_n_epoch=5",
        ),
        2,
    ),
}
WHOLE = ("--trainer.callbacks=tests.tasks.stop_after.StopAfter", "--trainer.callbacks.step=100")


@pytest.fixture(scope="module", params=CASES)
def task(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, CASES[request.param].prepare(tiny, folder)


def arguments(options: list[str], output: Path, *more: str) -> list[str]:
    """Two epochs of three or four steps."""
    return [*fit_arguments(options, output), *batch(4, 1), "--trainer.max_epochs=2", *more]


@pytest.mark.parametrize("end", ENDS)
def test_the_last_step_is_validated_and_an_adapter_saved(end: str, task: tuple[str, list[str]], tmp_path: Path) -> None:
    name, options = task
    more, last = ENDS[end]
    output = tmp_path / "out"
    said = run(arguments(options, output, *more), output)
    last = last or find_run(output / "logs").about["total_steps"]
    assert max(losses(output)) == last
    assert validation(output)["step"] == last
    assert "Best LoRA adapter saved." in said
    assert CASES[name].weights(output)
    assert "Stopping early" not in said


@pytest.mark.parametrize("end", ["max_steps", "a callback's stop"])
def test_going_on_from_such_an_end_is_exact(end: str, task: tuple[str, list[str]], tmp_path: Path) -> None:
    _, options = task
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(arguments(options, whole, *WHOLE), whole)
    run(arguments(options, parts, *ENDS[end][0]), parts)
    assert max(losses(parts)) == 2
    run(arguments(options, parts, *WHOLE, "--resume"), parts)
    assert losses(parts) == losses(whole)
    one, other = (torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in (whole, parts))
    assert all(torch.equal(one[name], weights) for name, weights in other.items())
    assert validation(parts)["val_loss"] == validation(whole)["val_loss"]


def test_without_a_validation_the_last_steps_adapter_is_kept_and_not_called_the_best(
    task: tuple[str, list[str]], tmp_path: Path
) -> None:
    name, options = task
    output = tmp_path / "out"
    said = run(arguments(options, output, "--trainer.limit_val_batches=0", "--trainer.max_steps=2"), output)
    assert "limit_val_batches is 0" in said
    assert "Best LoRA adapter saved." not in said
    trained = torch.load(output / "last.ckpt", weights_only=True)["state_dict"]
    saved = {weights.double().sum().item() for weights in CASES[name].weights(output).values()}
    assert saved == {weights.double().sum().item() for weights in trained.values()}
    run(arguments(options, output, "--trainer.limit_val_batches=0", "--trainer.max_steps=2", "--resume"), output)


@pytest.mark.parametrize("end", ["limit_train_batches=0", "max_steps=0", "max_epochs=0", "max_time=00:00:00:00"])
def test_a_run_of_no_step_is_no_success(end: str, task: tuple[str, list[str]], tmp_path: Path) -> None:
    _, options = task
    output = tmp_path / "out"
    assert_refused(
        run(arguments(options, output, f"--trainer.{end}"), output, status=2), "leaves no adapter: no step was trained"
    )


def test_a_run_whose_numbers_are_never_finite_is_no_success(task: tuple[str, list[str]], tmp_path: Path) -> None:
    name, options = task
    if name == "vqa":  # which is judged by exact match, a finite number whatever the weights are
        return
    output = tmp_path / "out"
    broken = ["--trainer.callbacks=tests.tasks.stop_after.BreakWeights", "--trainer.max_steps=1"]
    assert_refused(run(arguments(options, output, *broken), output, status=2), "never a finite number")
    assert find_run(output / "logs").status() == "failed"


def test_a_validation_at_the_end_that_was_cut_off_is_done_when_resumed(
    task: tuple[str, list[str]], tmp_path: Path
) -> None:
    name, options = task
    output = tmp_path / "out"
    cut = "--trainer.callbacks=tests.tasks.stop_after.TerminateInValidation"
    said = run(arguments(options, output, "--trainer.max_steps=2", cut), output, status=143)
    assert "SIGTERM" in said
    assert not (output / CASES[name].adapter).exists()
    run(arguments(options, output, "--trainer.max_steps=2", "--resume"), output)
    assert validation(output)["step"] == 2
    assert CASES[name].weights(output)


def test_a_signal_between_validations_says_that_no_adapter_is_saved(
    task: tuple[str, list[str]], tmp_path: Path
) -> None:
    _, options = task
    output = tmp_path / "out"
    cut = "--trainer.callbacks=tests.tasks.stop_after.TerminateAfterStep"
    said = run(arguments(options, output, cut), output, status=143)
    assert "Stopped at step 1. No adapter is saved yet, since a stop leaves no time to validate. --resume" in said


def test_two_processes_end_alike(task: tuple[str, list[str]], tmp_path: Path) -> None:
    _, options = task
    output = tmp_path / "out"
    run([*arguments(options, output, "--trainer.max_steps=2"), *batch(2, 1)], output, processes=2)
    assert validation(output)["step"] == 2
