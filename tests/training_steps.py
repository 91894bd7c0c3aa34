"""A run's steps as its own files tell them, compared with those of `tests/independent_training.py`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.independent_training import Trained

STEPS, LR, DECAY, CLIP = 3, 0.01, 0.5, 0.1
OPTIONS = [  # every sample in one step, three times, each step written down
    f"--trainer.max_epochs={STEPS}", f"--model.init_args.lr={LR}", f"--model.init_args.weight_decay={DECAY}",
    f"--trainer.gradient_clip_val={CLIP}", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu",
    "--data.init_args.num_workers=0",
]  # fmt: skip


def split(batch_size: int, accumulate: int) -> list[str]:
    """The options that split a step in this way on each process."""
    return [f"--data.init_args.batch_size={batch_size}", f"--trainer.accumulate_grad_batches={accumulate}"]


def events(output: Path, event: str) -> list[dict[str, Any]]:
    """What the only run in `output/logs` noted."""
    [path] = (output / "logs").glob("*/metrics.jsonl")
    return [entry for entry in map(json.loads, path.read_text().splitlines()) if entry["event"] == event]


def assert_trained_as(plain: Trained, output: Path) -> None:
    """Loss, gradient norm and val_loss of every step, and the weights at the end, are those of the plain script."""
    steps, validations = events(output, "train"), events(output, "validation")
    assert [step["train_loss"] for step in steps] == pytest.approx(plain.losses, rel=1e-5)
    assert [step["grad_norm"] for step in steps] == pytest.approx(plain.norms, rel=1e-4)
    assert [entry["val_loss"] for entry in validations] == pytest.approx(plain.val_losses, rel=1e-5)
    assert min(plain.norms) > CLIP  # so that clipping is compared too
    found = by_module(torch.load(output / "last.ckpt", weights_only=True)["state_dict"])
    expected, start = by_module(plain.weights), by_module(plain.start)
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        moved = (weights - start[name]).norm()
        # relative to the way gone, since AdamW makes a whole step of the smallest gradient
        assert (found[name] - weights).norm() < 2e-3 * moved, name
        decayed = start[name] * (1 - (1 - LR * DECAY) ** STEPS)  # what weight decay alone takes away
        assert decayed.norm() > 8e-3 * moved, f"{name}: too little decays to see it"


def by_module(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names that begin inside the model, without the adapter's."""
    return {name.rpartition("base_model.model.")[2].replace(".default.", ".").replace(".recommendation.", "."): weights
            for name, weights in state.items()}  # fmt: skip
