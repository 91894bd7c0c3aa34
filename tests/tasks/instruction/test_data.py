"""Instruction data: what is left out and why, what of the rest is kept, how batches are made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavic.batching.padding import IGNORED
from lavic.batching.step_plan import MicroBatch
from lavic.errors import UserError
from lavic.model.image_entry import ImageEntry
from lavic.tasks.instruction.data import InstructionData
from tests.instruction_files import InstructionFiles, write_instruction_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> InstructionFiles:
    return write_instruction_files(tmp_path_factory.mktemp("instruction") / "files", seen=5, text=3)


def data_of(files: InstructionFiles, tiny: Path, **more: Any) -> InstructionData:
    folder, more = files.folder, {"template": "mistral", **more}
    made = InstructionData(
        folder / "train.json", folder / "val.json", folder / "images", model_name=str(tiny), num_workers=0,
        cache_dir=folder / "cache", batch_size=4, **more,
    )  # fmt: skip
    made.prepare_data()
    made.setup("fit")
    return made


def broken(folder: Path) -> list[dict[str, Any]]:
    """A record for each way an image can be wrong, and for each record that cannot be used."""
    whole = (folder / "train0_0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "words.png").write_text("not an image")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A towel."}]
    records: list[dict[str, Any]] = [
        {"id": name, "image": f"{name}.png", "conversations": turns} for name in ("gone", "cut", "empty", "words")
    ]
    second = [{"from": "human", "value": "<image><image>\nWhat?"}, turns[1]]
    records.append({"id": "second", "image": ["train0_0.png", "gone.png"], "conversations": second})
    records.append({"id": "many", "image": ["train0_0.png"] * 3, "conversations": second})
    long = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A towel. " * 400}]
    return [*records, {"id": "long", "conversations": long}]


def test_what_cannot_be_used_is_listed_and_the_rest_is_as_without_it(tiny: Path, tmp_path: Path) -> None:
    files = write_instruction_files(tmp_path / "files", seen=5, text=3)
    alone = data_of(files, tiny, max_length=700)
    good = json.loads((files.folder / "train.json").read_text())
    bad = broken(files.folder / "images")
    mixed = [record for pair in zip(good, [*bad, None], strict=True) for record in pair if record]
    (files.folder / "train.json").write_text(json.dumps(mixed))
    found = data_of(files, tiny, max_length=700)
    reasons = {entry.where.split("(id ")[-1].rstrip(")"): entry.reason for entry in found.left_out}
    assert reasons.keys() == {record["id"] for record in bad}
    assert reasons["gone"] == reasons["second"] == "image missing"
    assert reasons["many"] == "2 x <image> for 3 images"
    assert reasons["long"] == "too long for max_length"
    assert len(found.tables["train"]) + len(found.left_out) == len(mixed)
    assert found.fingerprint() == alone.fingerprint()
    with pytest.raises(UserError, match="cannot be used"):
        data_of(files, tiny, max_length=700, strict=True)


@pytest.mark.parametrize("tokens", ["patch", "cls"])
def test_lengths_runs_and_image_tokens_agree_with_the_batches(files: InstructionFiles, tiny: Path, tokens: Any) -> None:
    made = data_of(files, tiny, entry=ImageEntry(tokens))
    table, batches = made.tables["train"], made.dataset("train")
    lengths, targets = made.lengths("train")
    assert made.kinds("train").tolist() == [1] * 5 + [0] * 3
    for index in range(len(table)):
        row, batch = table.row(index), batches[MicroBatch((index,), 9)]
        assert batch["attention_mask"].sum() == lengths[index] == len(row["input_ids"])
        assert (batch["labels"] != IGNORED).sum() == targets[index] > 0
        places = int((batch["input_ids"] == made.reader.image_token_id).sum())
        assert places == batch["image_tokens"] == sum(row["image_tokens"])
        assert ("views" in batch) == bool(row["images"])
        if tokens == "cls":
            assert places == len(batch.get("views", ()))
        said = [made.processor.tokenizer.decode(row["input_ids"][start:stop]) for start, stop in row["runs"]]
        assert said[-1].strip() == f"{row['answer']}</s>"
    both = batches[MicroBatch((0, 2, 3), 9)]
    assert (both["labels"] != IGNORED).sum() == targets[[0, 2, 3]].sum()
    assert (batches[MicroBatch((0,), 9, ghost=True)]["labels"] == IGNORED).all()


def test_a_partner_brings_its_own_images_and_as_many_image_tokens(files: InstructionFiles, tiny: Path) -> None:
    made = data_of(files, tiny)
    batches, table = made.dataset("val"), made.tables["val"]
    changed = 0
    for index in np.flatnonzero(made.kinds("val")):
        own, row = batches[MicroBatch((int(index),), 9)], table.row(int(index))
        other = own["shuffled"]
        image = made.reader.image_token_id
        assert (other["input_ids"] == image).sum() == other["image_tokens"]
        text, others = (b["input_ids"][b["input_ids"] != image].tolist() for b in (own, other))
        assert text == others
        learned, also = (b["labels"][b["labels"] != IGNORED].tolist() for b in (own, other))
        assert learned == also
        changed += own["views"].shape != other["views"].shape or not torch.equal(own["views"], other["views"])
        assert len(row["images"]) == len(other["sizes"])
    assert changed >= 2


def test_prompts_are_how_training_begins(files: InstructionFiles, tiny: Path) -> None:
    made = data_of(files, tiny)
    for index in range(len(made.tables["train"])):
        whole = made.tables["train"].row(index)
        prompt = made.dataset("train").prompts([index])
        ids = prompt["input_ids"][0].tolist()
        assert whole["input_ids"].tolist()[: len(ids)] == ids
        assert made.processor.tokenizer.decode(ids).endswith("[/INST]")
        assert prompt["samples"][0]["answer"] == whole["answer"]


def test_the_table_is_made_again_when_it_must_be(tiny: Path, tmp_path: Path) -> None:
    files = write_instruction_files(tmp_path / "files", seen=2, text=1)
    first = data_of(files, tiny).tables["train"].path
    assert data_of(files, tiny).tables["train"].path == first
    assert data_of(files, tiny, template="vicuna_v1").tables["train"].path != first
    assert data_of(files, tiny, entry=ImageEntry("cls")).tables["train"].path != first
    Image.new("RGB", (30, 40)).save(files.folder / "images" / "train0_0.png")
    assert data_of(files, tiny).tables["train"].path != first


def test_max_samples_is_a_choice_by_the_seed(files: InstructionFiles, tiny: Path) -> None:
    ids = [[data_of(files, tiny, max_samples=4, seed=seed).sample_names([0, 1, 2, 3])] for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("more", "why"),
    [({"template": "vicuna"}, "There is no template"), ({"template": "own"}, "generation"),
     ({"template": "chatml"}, "would never learn"), ({"max_length": 3}, "can be used")],
)  # fmt: skip
def test_a_wrong_option_is_one_sentence(files: InstructionFiles, tiny: Path, more: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        data_of(files, tiny, **more)
