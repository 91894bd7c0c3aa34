"""One entry a task: what the tables that every task must pass need to know of it.

A new task is one more entry in `CASES`, and a row in each table.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import write_described
from tests.instruction_files import write_instruction_files
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


def _instruction(tiny: Path, folder: Path) -> list[str]:
    """Images, and text alone: 8 and 4 records are three steps of one kind each."""
    files = write_instruction_files(folder / "files", seen=8, text=4)
    option = "--model.init_args."
    return [
        f"--config={ROOT}/configs/instruct.yaml", *files.options(), f"{option}base.name={tiny}",
        f"{option}entry={{tokens: patch, shape: null}}", "--data.init_args.entry={tokens: patch, shape: null}",
        f"{option}trainable.projector=lora", f"{option}trainable.lora.dropout=0", f"{option}part_lr=null",
        f"{option}scheduler=null",
        f"{option}max_new_tokens=2", "--trainer.max_epochs=1",
    ]  # fmt: skip


def _vqa(tiny: Path, folder: Path) -> list[str]:
    (folder / "images").mkdir(parents=True)
    colours = ("red", "blue", "green", "yellow", "black", "white")
    for split, count in (("train", 12), ("val", 5)):
        rows = []
        for number in range(count):
            name, colour = f"{split}_{number}.png", colours[number % len(colours)]
            Image.new("RGB", (60 + 20 * (number % 3), 50), colour).save(folder / "images" / name)
            question = "which colour is it " * (1 + number % 2)
            rows.append({"image": name, "question": question, "answer": colour + " paint" * (number % 3)})
        (folder / f"{split}.json").write_text(json.dumps(rows))
    return [
        f"--config={ROOT}/configs/vqa.yaml", f"--model.init_args.base.name={tiny}",
        *(f"--data.init_args.{split}_data={folder / split}.json" for split in ("train", "val")),
        f"--data.init_args.images_dir={folder / 'images'}", f"--data.init_args.cache_dir={folder / 'cache'}",
        "--model.init_args.trainable.lora.dropout=0", "--model.init_args.scheduler=null",
        "--model.init_args.max_new_tokens=2", "--trainer.max_epochs=1",
    ]  # fmt: skip


CASES = {
    "distillation": Case(_distillation, "vision_lora_adapter_best"),
    "recommendation": Case(_recommendation, "recommendation_lora_adapter_best"),
    "instruction": Case(_instruction, "instruction_adapter_best"),
    "vqa": Case(_vqa, "vqa_adapter_best"),
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
