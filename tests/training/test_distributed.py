"""Two processes on gloo are one process with twice the batch; each sample is validated once."""

from pathlib import Path

import pytest
import torch

from lavic.runs.run_files import find_run
from tests.conftest import Described, write_described
from tests.training.command_line import adapter, fit, losses, validation

METRICS = ("val_loss", "val_loss_shuffled", "val_loss_blank", "visual_gain")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("train", "valid"), [(19, 7), (16, 8)], ids=["not divisible", "divisible"])
def test_two_processes_train_and_validate_as_one_with_twice_the_batch(
    tiny: Path, tmp_path: Path, train: int, valid: int
) -> None:
    described = write_described(tmp_path / "data", train, valid)
    one, two = tmp_path / "one", tmp_path / "two"
    fit(tiny, described, one, "--data.init_args.batch_size=4")
    printed = fit(tiny, described, two, "--data.init_args.batch_size=2", processes=2)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    for name in METRICS:
        assert validation(two)[name] == pytest.approx(validation(one)[name], abs=1e-6), name
    assert validation(two)["samples"] == validation(one)["samples"] == valid
    for name, weights in adapter(one).items():
        torch.testing.assert_close(adapter(two)[name], weights, rtol=1e-3, atol=1e-5)
    assert "unused" not in printed
    assert "find_unused_parameters" not in printed


def test_only_the_first_process_writes(tiny: Path, described: Described, tmp_path: Path) -> None:
    printed = fit(tiny, described, tmp_path / "out", processes=2)
    assert len(list((tmp_path / "out" / "logs").glob("*.log"))) == 1
    assert len(list((tmp_path / "out" / "logs").glob("*/metrics.jsonl"))) == 1
    assert printed.count("Best LoRA adapter saved.") == 1
    assert find_run(tmp_path / "out" / "logs").about["processes"] == 2


def test_two_processes_resume_to_the_same_bits(tiny: Path, described: Described, tmp_path: Path) -> None:
    """With dropout: each process has its own random numbers, and gets them back."""
    options = ("--model.init_args.trainable.lora.dropout=0.3", "--checkpoint.every_n_steps=1")
    fit(tiny, described, tmp_path / "whole", *options, processes=2)
    part = ("--trainer.limit_val_batches=0", "--trainer.max_steps=4")
    fit(tiny, described, tmp_path / "parts", *options, *part, processes=2)
    said = fit(tiny, described, tmp_path / "parts", *options, "--resume", processes=2)
    assert "Resuming from" in said
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole = adapter(tmp_path / "whole")
    assert all(torch.equal(weights, whole[name]) for name, weights in adapter(tmp_path / "parts").items())


def test_another_number_of_processes_is_refused(tiny: Path, described: Described, tmp_path: Path) -> None:
    fit(tiny, described, tmp_path / "out", "--trainer.max_steps=2", processes=2)
    said = fit(tiny, described, tmp_path / "out", "--resume", status=2)
    assert "processes 2, this run has 1" in said


def test_fsdp2_trains_validates_and_resumes_as_one_process(tiny: Path, tmp_path: Path) -> None:
    described = write_described(tmp_path / "data", 16, 7)
    one, two = tmp_path / "one", tmp_path / "two"
    size = "--trainer.strategy.init_args.data_parallel_size=2"
    sharded = (
        "--config",
        "configs/with/fsdp2.yaml",
        size,
        "--data.init_args.batch_size=2",
        "--checkpoint.every_n_steps=1",
    )
    fit(tiny, described, one, "--data.init_args.batch_size=4")
    part = ("--trainer.limit_val_batches=0", "--trainer.max_steps=2")
    fit(tiny, described, two, *sharded, *part, processes=2, strategy=None)
    said = fit(tiny, described, two, *sharded, "--resume", processes=2, strategy=None)
    assert "Resuming from" in said
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert validation(two)["val_loss"] == pytest.approx(validation(one)["val_loss"], abs=1e-6)
    for name, weights in adapter(one).items():
        torch.testing.assert_close(adapter(two)[name], weights, rtol=1e-3, atol=1e-5)
