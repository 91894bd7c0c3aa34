"""Micro-batches of text alone do not run the vision tower; those with images run it once each."""

from pathlib import Path

import pytest
import torch

from lavic.batching.step_plan import StepPlan
from lavic.model.image_entry import ImageEntry
from lavic.model.loading import BaseModel
from lavic.tasks.instruction.data import InstructionData
from lavic.tasks.instruction.task import Instruction
from tests.instruction_files import write_instruction_files


@pytest.mark.parametrize("parts", ["lora", "full"])
def test_the_tower_runs_as_often_as_there_are_micro_batches_with_images(tiny: Path, tmp_path: Path, parts: str) -> None:
    files = write_instruction_files(tmp_path / "files", seen=4, text=4)
    entry = ImageEntry()
    data = InstructionData(
        files.folder / "train.json", files.folder / "val.json", files.folder / "images", model_name=str(tiny),
        num_workers=0, cache_dir=files.folder / "cache", batch_size=2, template="mistral", entry=entry,
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    task = Instruction(BaseModel(str(tiny)), parts, entry)  # type: ignore[arg-type]
    task.processor = task.load_processor()
    task.load_model(torch.device("cpu"))
    runs: list[int] = []
    task.llava.model.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    kinds: list[list[bool]] = [[], []]
    for rank in range(2):
        plan = StepPlan(*data.lengths("train"), 2, 1, 2, rank, 42, kinds=data.kinds("train"))
        for micro_batch in plan:
            prepared = task.on_before_batch_transfer(data.dataset("train")[micro_batch], 0)
            seen, before = "views" in prepared, len(runs)
            task.loss_sum(prepared).backward()
            kinds[rank].append(seen)
            assert len(runs) - before == seen
    assert kinds[0] == kinds[1]  # the same kind at the same micro-batch, on every process
    assert sorted(kinds[0]) == [False, True]
