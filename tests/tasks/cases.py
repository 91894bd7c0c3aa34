"""One entry a task: what the tables that every task must pass need to know of it.

A new task is one more entry in `CASES`, and a row in each table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import write_described
from tests.stage2_files import write_stage2_files
from tests.training.command_line import ROOT, run


@dataclass(frozen=True)
class Case:
    """A task on the tiny model.

    Attributes:
        prepare: (tiny, folder) -> the options of a fit, after writing into `folder` what they name.
        adapter: the folder of its best adapter.
    """

    prepare: Callable[[Path, Path], list[str]]
    adapter: str

    def weights(self, output: Path) -> dict[str, Tensor]:
        """The best adapter of a run."""
        return load_file(output / self.adapter / "adapter_model.safetensors")


def _distillation(tiny: Path, folder: Path) -> list[str]:
    described = write_described(folder, train=12, valid=4)
    return [
        f"--config={ROOT}/configs/distill.yaml", *described.flags(), f"--model.init_args.base.name={tiny}",
        "--model.init_args.trainable.lora.dropout=0", "--model.init_args.max_new_tokens=2",
        f"--data.init_args.cache_dir={folder / 'cache'}",
    ]  # fmt: skip


def _recommendation(tiny: Path, folder: Path) -> list[str]:
    files = write_stage2_files(folder / "files", tiny)
    options = [option.replace("--config=", f"--config={ROOT}/") for option in files.options()]
    run(["embed", *options], folder / "embedded")
    return [*options, "--model.init_args.lora.dropout=0"]


CASES = {
    "distillation": Case(_distillation, "vision_lora_adapter_best"),
    "recommendation": Case(_recommendation, "recommendation_lora_adapter_best"),
}


def fit_arguments(options: list[str], output: Path) -> list[str]:
    """A fit on the CPU that notes every step and saves after each."""
    return [
        "fit", *options, "--model.init_args.lr=0.002", "--data.init_args.num_workers=0", "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1", "--checkpoint.every_n_steps=1", f"--trainer.default_root_dir={output}",
        f"--logs_dir={output / 'logs'}",
    ]  # fmt: skip


def batch(size: int, accumulate: int) -> list[str]:
    """The options that split a step in this way on each process."""
    return [f"--data.init_args.batch_size={size}", f"--trainer.accumulate_grad_batches={accumulate}"]


def assert_refused(said: str, why: str, processes: int = 1) -> None:
    """Each process said one sentence that holds `why`, and nothing of its inner life."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == processes, said
    assert all(why in error for error in errors), errors
    assert "Traceback" not in said, said
    assert "usage:" not in said, said
    assert "saved" not in said, said
