"""A chat.json of LLaVA's first stage, as LLaVA-CC3M-Pretrain has it: any place of the tag, any kind of image."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lavic.batching.padding import IGNORED
from lavic.batching.step_plan import MicroBatch
from lavic.model.composing import Architecture
from lavic.tasks.instruction.data import InstructionData

ASKED = {"first": "<image>\nDescribe it.", "last": "Describe it.\n<image>", "absent": "Describe it."}
MODES = ("L", "CMYK", "RGBA", "RGB")


def write(folder: Path) -> int:
    """`chat.json` and its images in `folder`; how many records there are, of which one has no image on disk."""
    records = []
    for number, mode in enumerate(MODES):
        for place, said in ASKED.items():
            name = f"{number:09d}_{place}"
            Image.new("RGB", (50 + 30 * number, 60), "red").convert(mode).save(folder / f"{name}.tif")
            turns = [{"from": "human", "value": said}, {"from": "gpt", "value": f" a towel, {mode} ."}]
            records.append({"id": name.partition("_")[0], "image": f"{name}.tif", "conversations": turns})
    records.append({**records[0], "id": "000000000", "image": "gone.jpg"})
    (folder / "chat.json").write_text(json.dumps(records))
    return len(records)


@pytest.mark.parametrize("template", ["chatml", "own"])
def test_every_record_is_used_or_listed_and_teaches_its_answer(
    composed: dict[Architecture, Path], tmp_path: Path, template: str
) -> None:
    given = write(tmp_path)
    data = InstructionData(
        tmp_path / "chat.json", tmp_path / "chat.json", tmp_path, template, model_name=str(composed["llava"]),
        num_workers=0, cache_dir=tmp_path / "cache",
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    table, left_out = data.tables["train"], [entry for entry in data.left_out if entry.split == "train"]
    assert [entry.reason for entry in left_out] == ["image missing"]
    assert len(table) + len(left_out) == given
    tokenizer = data.processor.tokenizer
    for index in range(len(table)):
        row = table.row(index)
        assert row["id"] == f"{index // len(ASKED):09d}"  # no number: its zeros stay
        batch = data.dataset("train")[MicroBatch((index,), 1)]
        taught = batch["labels"][batch["labels"] != IGNORED]
        assert tokenizer.decode(taught) == f"a towel, {MODES[index // len(ASKED)]} .<|im_end|>"
        text = tokenizer.decode(batch["input_ids"][0], skip_special_tokens=False)
        assert "<|im_start|>user\n" + "<image>" * 16 + "\nDescribe it.<|im_end|>" in text
        red = batch["views"].float().mean((0, 2, 3))
        if MODES[index // len(ASKED)] != "L":
            assert red[0] > red[1] + 50
        assert batch["views"].dtype == torch.uint8
