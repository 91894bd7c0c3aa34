"""Micro-batches of text alone do not run the vision tower; those with images run it once each."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lavic.batching.step_plan import StepPlan
from lavic.model.image_entry import ImageEntry
from lavic.model.loading import BaseModel
from lavic.tasks.instruction.data import InstructionData
from lavic.tasks.instruction.task import Instruction
from tests.instruction_files import write_instruction_files
from tests.tasks.cases import batch, fit_arguments
from tests.training.command_line import ROOT, run

PARTS = {  # what is trained without the language model, and the file that holds it
    "projector": ("{vision: frozen, projector: full, language: frozen}", "full_parts.safetensors"),
    "vision": ("{vision: lora, projector: frozen, language: frozen, lora: {dropout: 0}}", "adapter_model.safetensors"),
}


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
            task.loss_sum(prepared).backward()  # type: ignore[no-untyped-call]
            kinds[rank].append(seen)
            assert len(runs) - before == seen
    assert kinds[0] == kinds[1]  # the same kind at the same micro-batch, on every process
    assert sorted(kinds[0]) == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_text_alone_moves_nothing_where_no_trained_part_reads_it(
    tiny: Path, tmp_path: Path, part: str, streaming: bool, processes: int
) -> None:
    trainable, weights = PARTS[part]
    found = []
    for name, text in (("with", 6), ("without", 0)):
        files, output = write_instruction_files(tmp_path / name, seen=8, text=text), tmp_path / f"out_{name}"
        option = "--model.init_args."
        arguments = fit_arguments(
            [
                f"--config={ROOT}/configs/instruct.yaml", *files.options(), f"{option}base.name={tiny}",
                f"{option}entry={{tokens: patch, shape: null}}", "--data.init_args.entry={tokens: patch, shape: null}",
                f"{option}trainable={trainable}", f"{option}part_lr=null", f"{option}scheduler=null",
                f"{option}max_new_tokens=2", "--trainer.max_epochs=2", f"--data.init_args.streaming={streaming}",
            ],
            output,
        )  # fmt: skip
        run([*arguments, *batch(2, 1)], output, processes)
        found.append(load_file(output / "instruction_adapter_best" / weights))
        listed = [json.loads(line) for line in (output / "skipped_samples.jsonl").read_text().splitlines()]
        left_out = [one for one in listed if one["split"] == "train"]
        assert len(left_out) == text
        assert all(one["reason"].startswith("text alone") for one in left_out)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
