"""Steps over mixed records against a plain loop: loss, gradient norm, val_loss and weights, however a step is split."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from tests.instruction_files import InstructionFiles, write_instruction_files
from tests.training.command_line import ROOT, run
from tests.training_steps import events

EPOCHS, LR, CLIP = 2, 1e-3, 0.5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> InstructionFiles:
    """Four records with images, which fill a step of four, and three of text alone, which make a short one."""
    return write_instruction_files(tmp_path_factory.mktemp("instruction") / "files", seen=4, text=3)


@pytest.fixture(scope="module")
def plain(tiny: Path, files: InstructionFiles) -> dict[str, Any]:
    """The same in plain transformers: a sample at a time, nothing of LaViC."""
    torch.manual_seed(0)
    llava = LlavaNextForConditionalGeneration.from_pretrained(tiny)
    processor = AutoProcessor.from_pretrained(tiny)
    trained = {n: p.requires_grad_("vision_tower" not in n) for n, p in llava.named_parameters()}
    trained = {n: p for n, p in trained.items() if p.requires_grad}
    start = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=LR, weight_decay=0.0)
    records = {split: json.loads((files.folder / f"{split}.json").read_text()) for split in ("train", "val")}
    found: dict[str, Any] = {"losses": [], "norms": [], "val_losses": []}
    for _ in range(EPOCHS):
        for step in ([r for r in records["train"] if "image" in r], [r for r in records["train"] if "image" not in r]):
            optimizer.zero_grad()
            loss = mean_loss(llava, processor, step, files.folder / "images")
            loss.backward()  # type: ignore[no-untyped-call]
            for parameter in trained.values():  # text alone has a gradient of zero for the projector, not none:
                if parameter.grad is None:  # AdamW goes on by its momentum then
                    parameter.grad = torch.zeros_like(parameter)
            found["norms"].append(float(torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)))
            optimizer.step()
            found["losses"].append(float(loss.detach()))
        with torch.no_grad():
            found["val_losses"].append(float(mean_loss(llava, processor, records["val"], files.folder / "images")))
    return {**found, "start": start, "weights": {n: p.detach().clone() for n, p in trained.items()}}


def mean_loss(llava: Any, processor: Any, records: list[dict[str, Any]], images: Path) -> Tensor:
    """The mean over all tokens of answers and their ends."""
    total, count = torch.zeros(()), 0
    for record in records:
        pictures = [Image.open(images / name) for name in record.get("image", [])]
        text = ""
        learned: list[int] = []
        for turn in record["conversations"]:
            if turn["from"] == "human":
                said = turn["value"].replace("<image>", "").strip() if pictures and not text else turn["value"]
                text += "[INST] " + "<image>\n" * (len(pictures) if not text else 0) + said + " [/INST]"
            else:
                start = processor(text=text, images=pictures or None, return_tensors="pt")["input_ids"].shape[1]
                text += f" {turn['value']}</s>"
                stop = processor(text=text, images=pictures or None, return_tensors="pt")["input_ids"].shape[1]
                learned += range(start, stop)
        inputs = processor(text=text, images=pictures or None, return_tensors="pt")
        scores = llava(**inputs).logits[0].log_softmax(dim=-1)
        for place in learned:
            total = total - scores[place - 1, inputs["input_ids"][0, place]]
        count += len(learned)
    mean: Tensor = total / count
    return mean


def options(tiny: Path, files: InstructionFiles, output: Path) -> list[str]:
    option = "--model.init_args."
    return [
        "fit", f"--config={ROOT}/configs/instruct.yaml", *files.options(), f"{option}base.name={tiny}",
        f"{option}entry={{tokens: patch, shape: null}}", "--data.init_args.entry={tokens: patch, shape: null}",
        f"{option}trainable.language=full", f"{option}part_lr=null", f"{option}scheduler=null", f"{option}lr={LR}",
        f"{option}max_new_tokens=4",
        f"--trainer.max_epochs={EPOCHS}", f"--trainer.gradient_clip_val={CLIP}", "--trainer.log_every_n_steps=1",
        "--trainer.accelerator=cpu", "--data.init_args.num_workers=0", f"--trainer.default_root_dir={output}",
        f"--logs_dir={output / 'logs'}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "processes"),
    [
        pytest.param(4, 1, 1, id="batch 4"),
        pytest.param(1, 4, 1, id="batch 1 x accumulation 4"),
        pytest.param(2, 1, 2, id="batch 2 x 2 processes"),
        pytest.param(1, 2, 2, id="batch 1 x accumulation 2 x 2 processes"),
    ],
)
def test_a_step_is_that_of_the_plain_loop(
    tiny: Path, files: InstructionFiles, plain: dict[str, Any], tmp_path: Path, batch_size: int, accumulate: int,
    processes: int,
) -> None:  # fmt: skip
    output = tmp_path / "out"
    split = [f"--data.init_args.batch_size={batch_size}", f"--trainer.accumulate_grad_batches={accumulate}"]
    run([*options(tiny, files, output), *split], output, processes)
    steps, validations = events(output, "train"), events(output, "validation")
    assert [step["train_loss"] for step in steps] == pytest.approx(plain["losses"], rel=1e-5)
    assert [step["grad_norm"] for step in steps] == pytest.approx(plain["norms"], rel=1e-4)
    assert [entry["val_loss"] for entry in validations] == pytest.approx(plain["val_losses"], rel=1e-5)
    assert min(plain["norms"]) > CLIP  # so that clipping is compared too
    assert all(entry["samples"] == 6 for entry in validations)
    assert all(entry["visual_gain"] != 0 for entry in validations)
    found = torch.load(output / "last.ckpt", weights_only=True)["state_dict"]
    found = {name.removeprefix("model."): weights for name, weights in found.items()}
    assert {name for name in found if "vision_tower" not in name} == plain["weights"].keys()
    for name, weights in plain["weights"].items():
        assert (found[name] - weights).norm() < 2e-3 * (weights - plain["start"][name]).norm(), name
