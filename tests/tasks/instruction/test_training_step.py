"""Steps over mixed records against a plain loop, for each way to train: losses, gradient norms, val_loss, weights.

The records have several turns and images; an epoch is a step of four records with images and one of three of text,
split in every way. The schedule, the projector's own learning rate and weight decay take part.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor

from lavic.model.templates import TEMPLATES
from tests.instruction_files import InstructionFiles, write_instruction_files
from tests.tasks.instruction.plain_loop import (
    ALPHA,
    CLIP,
    DECAY,
    EPOCHS,
    LR,
    PROJECTOR_LR,
    RANK,
    WARMUP,
    Trained,
    steps_of,
    train,
)
from tests.training.command_line import ROOT, run
from tests.training_steps import events

MODEL = "--model.init_args."
PARTS = {  # how the command line is told to train in each way
    "lora": ["language=lora"],
    "nf4": ["language=lora"],
    "full": ["vision=full", "language=full"],
    "freeze_vision": ["language=full"],
    "projector": ["language=frozen"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> InstructionFiles:
    """Four records with images, which fill a step of four, and three of text alone, which make a short one."""
    return write_instruction_files(tmp_path_factory.mktemp("instruction") / "files", seen=4, text=3)


def options(tiny: Path, files: InstructionFiles, way: str, output: Path) -> list[str]:
    return [
        "fit", f"--config={ROOT}/configs/instruct.yaml", *files.options(), f"{MODEL}base.name={tiny}",
        f"{MODEL}entry={{tokens: patch, shape: null}}", "--data.init_args.entry={tokens: patch, shape: null}",
        *(f"{MODEL}trainable.{part}" for part in PARTS[way]),
        f"{MODEL}trainable.lora={{r: {RANK}, alpha: {ALPHA}, dropout: 0}}",
        *([f"{MODEL}base.quantization=nf4"] if way == "nf4" else []), f"{MODEL}max_new_tokens=4",
        f"--trainer.gradient_clip_val={CLIP}", "--trainer.log_every_n_steps=1",
        "--trainer.accelerator=cpu", "--data.init_args.num_workers=0", f"--trainer.default_root_dir={output}",
        f"--logs_dir={output / 'logs'}",
    ]  # fmt: skip


def weights_of(output: Path) -> dict[str, Tensor]:
    """What the newest checkpoint holds, by the model's own names."""
    state = torch.load(output / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("model."): weights for name, weights in state.items()}


@pytest.fixture(scope="module")
def plain(tiny: Path, files: InstructionFiles, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """The plain loop's steps of a way, from the weights that the command starts with."""
    done: dict[str, Trained] = {}

    def trained(way: str) -> Trained:
        if way not in done:
            still = tmp_path_factory.mktemp(way) / "still"
            resting = [f"{MODEL}lr=1e-30", f"{MODEL}part_lr=null", "--trainer.max_steps=1"]
            run([*options(tiny, files, way, still), *resting, "--trainer.limit_val_batches=0"], still)
            done[way] = train(tiny, files.folder, way, weights_of(still))
        return done[way]

    return trained


QUICK = {("freeze_vision", "batch 4"), ("lora", "batch 1 x accumulation 4"), ("nf4", "batch 1 x accumulation 4")}
SPLITS = {"batch 4": (4, 1, 1), "batch 1 x accumulation 4": (1, 4, 1), "batch 2 x 2 processes": (2, 1, 2),
          "batch 1 x accumulation 2 x 2 processes": (1, 2, 2)}  # fmt: skip


@pytest.mark.parametrize(
    ("way", "split"),
    [
        pytest.param(way, split, marks=[] if (way, split) in QUICK else [pytest.mark.slow])
        for way in PARTS
        for split in SPLITS
    ],
)
def test_steps_are_those_of_the_plain_loop(
    tiny: Path, files: InstructionFiles, plain: Callable[[str], Trained], tmp_path: Path, way: str, split: str
) -> None:
    output, expected = tmp_path / "out", plain(way)
    batch_size, accumulate, processes = SPLITS[split]
    trained = [
        f"--data.init_args.batch_size={batch_size}", f"--trainer.accumulate_grad_batches={accumulate}",
        f"--trainer.max_epochs={EPOCHS}", f"{MODEL}lr={LR}", f"{MODEL}part_lr={{projector: {PROJECTOR_LR}}}",
        f"{MODEL}weight_decay={DECAY}", f"{MODEL}scheduler.init_args.warmup={WARMUP}",
    ]  # fmt: skip
    run([*options(tiny, files, way, output), *trained], output, processes)
    steps, validations = events(output, "train"), events(output, "validation")
    assert len(steps) == steps_of(way)
    assert [step["train_loss"] for step in steps] == pytest.approx(expected.losses, rel=1e-5)
    assert [step["grad_norm"] for step in steps] == pytest.approx(expected.norms, rel=1e-4)
    assert [entry["val_loss"] for entry in validations] == pytest.approx(expected.val_losses, rel=1e-5)
    assert all(entry["samples"] == 6 for entry in validations)
    assert all(entry["visual_gain"] != 0 for entry in validations)
    served = AutoProcessor.from_pretrained(output / "instruction_adapter_best")
    assert served.chat_template == TEMPLATES["mistral"].jinja()  # whoever serves it writes as it was taught
    found = weights_of(output)
    assert found.keys() == expected.weights.keys()
    for name, weights in expected.weights.items():
        if name.endswith("k_proj.bias"):  # softmax is blind to it: AdamW steps along rounding
            continue
        moved = (weights - expected.start[name]).norm()
        # relative to the way gone, since AdamW makes a whole step of the smallest gradient
        assert (found[name] - weights).norm() < 2e-3 * moved, name
