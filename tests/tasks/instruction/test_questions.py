"""`predict` over a file of questions: LLaVA-Bench's form in and out, several turns, batches, resuming."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from lavic.catalogue.records import parse_question
from tests.instruction_files import InstructionFiles, write_instruction_files
from tests.tasks.cases import assert_refused
from tests.training.command_line import ROOT, run

NEW_TOKENS = 6
ENTRY = "init_args.entry={tokens: patch, shape: null}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> InstructionFiles:
    """Records with one image, two, several turns, and text alone; bench.jsonl asks about two of the images."""
    files = write_instruction_files(tmp_path_factory.mktemp("questions") / "files", seen=1, text=1, val=3)
    names = sorted(path.name for path in (files.folder / "images").glob("val*"))[:2]
    lines: list[dict[str, Any]] = [
        {"question_id": 7, "image": names[0], "text": "What does it show?", "category": "conv"},
        {"question_id": 8, "image": names[1], "text": "<image>\nIs the towel {large}?", "category": "detail"},
        {"question_id": 9, "text": "Which colour is next?"},
        {"question_id": 10, "image": "nowhere.png", "text": "What?"},
    ]
    (files.folder / "bench.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return files


def predict(tiny: Path, files: InstructionFiles, output: Path, questions: str, *more: str, **process: Any) -> str:
    return run(
        [
            "predict", f"--config={ROOT}/configs/instruct.yaml", *files.options(),
            f"--model.init_args.base.name={tiny}", f"--model.{ENTRY}", f"--data.{ENTRY}",
            f"--model.init_args.max_new_tokens={NEW_TOKENS}", f"--data.init_args.questions={files.folder / questions}",
            "--trainer.accelerator=cpu", "--data.init_args.num_workers=0", f"--trainer.default_root_dir={output}",
            f"--logs_dir={output / 'logs'}", *more,
        ],
        output, **process,
    )  # fmt: skip


def answers(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(output.glob("predictions*.jsonl")) for line in path.open()]


@pytest.fixture(scope="module")
def alone(tiny: Path, files: InstructionFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """LLaVA-Bench's questions, one at a time."""
    output = tmp_path_factory.mktemp("alone") / "out"
    predict(tiny, files, output, "bench.jsonl", "--data.init_args.batch_size=1")
    return {row["question_id"]: row for row in answers(output)}


def plainly(tiny: Path, text: str, images: list[Path]) -> str:
    """What plain transformers generates, a question alone."""
    torch.manual_seed(0)
    llava, processor = (
        LlavaNextForConditionalGeneration.from_pretrained(tiny).eval(),
        AutoProcessor.from_pretrained(tiny),
    )
    inputs = processor(text=text, images=[Image.open(path) for path in images] or None, return_tensors="pt")
    found = llava.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return str(processor.decode(found, skip_special_tokens=True)).strip()


def test_llava_benchs_form_in_and_out(
    tiny: Path, files: InstructionFiles, alone: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    assert list(alone) == [9, 7, 8]  # text alone first; 10 has no image
    for row in alone.values():
        assert set(row) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
        assert row["model_id"] == str(tiny)
    assert alone[8]["prompt"] == "Is the towel {large}?"
    images = files.folder / "images"
    lines = [json.loads(line) for line in (files.folder / "bench.jsonl").open()]
    for line in lines[:3]:
        shown = [images / line["image"]] if "image" in line else []
        asked = line["text"].replace("<image>", "").strip()
        prompt = f"[INST] {'<image>' + chr(10) if shown else ''}{asked} [/INST]"
        assert alone[line["question_id"]]["text"] == plainly(tiny, prompt, shown)


@pytest.mark.parametrize(("batch_size", "processes"), [(3, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_batches_and_processes_answer_the_same(
    tiny: Path,
    files: InstructionFiles,
    alone: dict[int, dict[str, Any]],
    tmp_path: Path,
    batch_size: int,
    processes: int,
) -> None:
    output = tmp_path / "out"
    predict(tiny, files, output, "bench.jsonl", f"--data.init_args.batch_size={batch_size}", processes=processes)
    assert {row["question_id"]: row for row in answers(output)} == alone
    [listed] = (output / "skipped_samples.jsonl").read_text().splitlines()
    assert json.loads(listed)["reason"] == "image missing"


def test_several_turns_are_read_up_to_the_question(tiny: Path, files: InstructionFiles, tmp_path: Path) -> None:
    output = tmp_path / "out"
    predict(tiny, files, output, "val.json", "--data.init_args.batch_size=4")
    found = {row["id"]: row for row in answers(output)}
    records = {record["id"]: record for record in json.loads((files.folder / "val.json").read_text())}
    assert found.keys() == records.keys()
    deep = next(record for record in records.values() if len(record["conversations"]) > 4)
    *before, answer = deep["conversations"]
    text = ""
    for place, turn in enumerate(before):
        said = turn["value"].replace("<image>", "").strip()
        human = f"[INST] {'<image>' + chr(10) if place == 0 else ''}{said} [/INST]"
        text += human if turn["from"] == "human" else f" {said}</s>"
    assert found[deep["id"]]["answer"] == answer["value"]
    assert found[deep["id"]]["generated"] == plainly(tiny, text, [files.folder / "images" / n for n in deep["image"]])


@pytest.mark.parametrize("kept", [1, 2])
def test_resumed_it_asks_what_is_not_answered(
    tiny: Path, files: InstructionFiles, alone: dict[int, dict[str, Any]], tmp_path: Path, kept: int
) -> None:
    """A killed run leaves whole lines and perhaps a half one."""
    output = tmp_path / "out"
    output.mkdir()
    marked = [{**row, "text": "answered before"} for row in alone.values()][:kept]
    whole = "".join(json.dumps(row) + "\n" for row in marked)
    (output / "predictions.jsonl").write_text(whole + json.dumps(alone[8])[:20])
    predict(tiny, files, output, "bench.jsonl", "--resume")
    found = answers(output)
    assert found[:kept] == marked
    assert sorted(row["question_id"] for row in found) == [7, 8, 9]
    assert all(row == alone[row["question_id"]] for row in found[kept:])
    predict(tiny, files, output, "bench.jsonl")  # without it, all anew
    assert {row["question_id"]: row for row in answers(output)} == alone


def test_what_cannot_be_asked_is_one_sentence(tiny: Path, files: InstructionFiles, tmp_path: Path) -> None:
    (files.folder / "none.jsonl").write_text('{"question_id": 1, "text": 5}\n')
    assert_refused(predict(tiny, files, tmp_path / "a", "none.jsonl", status=2), "No question of")
    assert_refused(predict(tiny, files, tmp_path / "b", "missing.jsonl", status=2), "does not exist")


@pytest.mark.parametrize(
    ("turns", "asked", "answer"),
    [
        ([("human", "A?")], "A?", None),
        ([("human", "A?"), ("gpt", "B.")], "A?", "B."),
        ([("human", "A?"), ("gpt", "B."), ("human", "C?")], "C?", None),
        ([("gpt", "Hello."), ("human", "A?")], "A?", None),
    ],
)
def test_the_last_question_is_asked(turns: list[tuple[str, str]], asked: str, answer: str | None) -> None:
    record = {"id": "x", "conversations": [{"from": who, "value": said} for who, said in turns]}
    found = parse_question(record, "1")
    assert not isinstance(found, str)
    assert (found[0].turns[-1].text, found[1]) == (asked, answer)
    spoken = [{"role": "user" if who == "human" else "assistant", "content": said} for who, said in turns]
    assert parse_question({"id": "x", "messages": spoken}, "1") == found
