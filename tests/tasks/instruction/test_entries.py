"""Composed LLaVAs by the command line, images entering in each way: trained, validated, saved, and loaded again."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from lavic.model.adapters.full_parts import FULL_PARTS
from lavic.model.composing import Architecture
from tests.instruction_files import InstructionFiles, write_instruction_files
from tests.training.command_line import ROOT, run, validation

ENTRIES: dict[str, tuple[Architecture, str]] = {
    "1.5 padded": ("llava", "{tokens: patch, shape: pad}"),
    "1.5 cropped": ("llava", "{tokens: patch, shape: square}"),
    "1.5 class tokens": ("llava", "{tokens: cls, views: five, shape: null}"),
    "1.6 patches": ("llava_next", "{tokens: patch, shape: null}"),
    "1.6 class tokens": ("llava_next", "{tokens: cls, views: anyres, shape: null}"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> InstructionFiles:
    """With images of several shapes, and without any."""
    return write_instruction_files(tmp_path_factory.mktemp("entries") / "files", seen=3, text=1)


@pytest.mark.parametrize(
    "entry", [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("1.6") else []) for name in ENTRIES]
)
def test_it_trains_and_what_was_saved_has_the_same_val_loss(
    files: InstructionFiles, composed: dict[Architecture, Path], tmp_path: Path, entry: str
) -> None:
    architecture, enters = ENTRIES[entry]
    base, output = composed[architecture], tmp_path / "out"
    options = [
        f"--config={ROOT}/configs/instruct.yaml", *files.options(), f"--model.init_args.base.name={base}",
        f"--model.init_args.entry={enters}", f"--data.init_args.entry={enters}", "--model.init_args.max_new_tokens=4",
        "--data.init_args.batch_size=2", "--data.init_args.num_workers=0", "--trainer.accelerator=cpu",
        f"--trainer.default_root_dir={output}", f"--logs_dir={output / 'logs'}",
    ]  # fmt: skip
    learning = ["--model.init_args.lr=0.01", "--model.init_args.part_lr=null", "--trainer.accumulate_grad_batches=1"]
    run(["fit", *options, *learning], output)
    trained = validation(output)
    assert trained["samples"] == 6
    assert trained["visual_gain"] != 0
    saved = output / "instruction_adapter_best"
    projector = load_file(saved / FULL_PARTS)
    start = AutoModelForImageTextToText.from_pretrained(base).state_dict()
    assert {name for name in projector if not torch.equal(projector[name], start[name])} == projector.keys()
    said = run(["validate", *options, f"--model.init_args.adapter={saved}", "--json"], output)
    assert f'"val_loss": {trained["val_loss"]}' in said
