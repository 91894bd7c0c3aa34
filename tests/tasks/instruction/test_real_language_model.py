"""A LLaVA of a toy CLIP and a real language model: its logits, its training, and that it stops.

`LAVIC_LANGUAGE_MODEL` names the model's directory, as transformers saves it. It was run with Gemma 3 270M, which takes
four minutes and 3.1 GB.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from lavic.model.composing import compose
from tests.model.building_blocks import vision_tower
from tests.training.command_line import ROOT, run
from tests.training_steps import events

GIVEN = os.environ.get("LAVIC_LANGUAGE_MODEL")
ANSWER = "Nine green kites over a harbour."
STEPS, MOST_TOKENS = 12, 24

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GIVEN, reason="LAVIC_LANGUAGE_MODEL names no language model's directory"),
]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The composed LLaVA: read only."""
    folder = tmp_path_factory.mktemp("real")
    compose(str(vision_tower(folder / "clip")), str(GIVEN), folder / "llava", dtype="float32")
    return folder / "llava"


def test_text_logits_are_its_own_bit_for_bit(llava: Path) -> None:
    ids = AutoTokenizer.from_pretrained(llava)("The harbour of Oslo lies <far> from 12 kites.", return_tensors="pt")
    with torch.no_grad():
        own = AutoModelForCausalLM.from_pretrained(GIVEN, dtype=torch.float32).eval()(**ids).logits
        composed = AutoModelForImageTextToText.from_pretrained(llava, dtype=torch.float32).eval()(**ids).logits
    assert torch.equal(composed[..., : own.shape[-1]], own)
    assert composed.shape[-1] >= own.shape[-1]


def write_records(folder: Path) -> list[str]:
    """One image, one question and its answer; the options that name them."""
    folder.mkdir()
    Image.new("RGB", (90, 60), "green").save(folder / "kites.png")
    turns = [("human", "<image>\nWhat is it?"), ("gpt", ANSWER)]
    record = {"id": "1", "image": "kites.png", "conversations": [{"from": who, "value": said} for who, said in turns]}
    (folder / "records.json").write_text(json.dumps([record]))
    return [
        f"--data.init_args.train_data={folder / 'records.json'}",
        f"--data.init_args.val_data={folder / 'records.json'}", f"--data.init_args.images_dir={folder}",
        "--data.init_args.template=own", f"--data.init_args.cache_dir={folder / 'cache'}",
        "--data.init_args.num_workers=0", "--trainer.accelerator=cpu",
        f"--model.init_args.max_new_tokens={MOST_TOKENS}",
    ]  # fmt: skip


def test_it_learns_an_answer_and_stops_at_its_end(llava: Path, tmp_path: Path) -> None:
    options = [f"--config={ROOT}/configs/instruct.yaml", *write_records(tmp_path / "data")]
    options.append(f"--model.init_args.base.name={llava}")

    def answered(name: str, *more: str) -> str:
        output = tmp_path / name
        folders = [f"--trainer.default_root_dir={output}", f"--logs_dir={output / 'logs'}"]
        run(["predict", *options, *folders, *more], output)
        [line] = (output / "predictions.jsonl").read_text().splitlines()
        return str(json.loads(line)["generated"])

    assert answered("before") != ANSWER
    tuned = tmp_path / "tuned"
    learning = [
        "--model.init_args.trainable.lora={r: 16, alpha: 32, dropout: 0}", "--model.init_args.lr=1e-3",
        "--model.init_args.part_lr=null", "--model.init_args.scheduler=null", f"--trainer.max_epochs={STEPS}",
        "--trainer.accumulate_grad_batches=1", "--trainer.log_every_n_steps=1",
        f"--trainer.check_val_every_n_epoch={STEPS}", f"--trainer.default_root_dir={tuned}",
        f"--logs_dir={tuned / 'logs'}",
    ]  # fmt: skip
    run(["fit", *options, *learning], tuned)
    losses = [step["train_loss"] for step in events(tuned, "train")]
    assert len(losses) == STEPS
    assert losses[-1] < 0.1 < losses[3] < losses[0]
    adapter = f"--model.init_args.adapter={tuned / 'instruction_adapter_best'}"
    assert answered("after", adapter) == ANSWER  # and not a token more of MOST_TOKENS
