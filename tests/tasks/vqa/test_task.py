"""VQA through its real commands on a tiny model: fit, validate, test and predict on the same prompts (C3, C8)."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavic.catalogue.images import BrokenImage, open_image
from lavic.commands import fit as cli
from lavic.tasks.vqa import Vqa, batches, task
from lavic.tasks.vqa.encoding import QuestionEncoder, question_reader
from lavic.tasks.vqa.prompt import Question
from tests.tasks.vqa.comparison import assert_numbers_are_the_scripts
from tests.training import command_line

ROOT = Path(__file__).parents[3]
COLOURS = ("red", "blue", "green", "yellow")
INSTRUCTION = "Say the colour."


def write_questions(folder: Path, split: str, count: int) -> None:
    rng = random.Random(split)
    entries = []
    for i in range(count):
        colour = rng.choice(COLOURS)
        name = f"{split}_{i // 2}_{colour}.jpg"
        (folder / "images").mkdir(exist_ok=True)
        Image.new("RGB", (60 + 10 * (i % 3), 50), colour).save(folder / "images" / name)
        needs = i % 3 == 0
        entries.append(
            {"image": name, "question": f"which colour {i}", "answer": colour, "need_external_knowledge": needs}
        )
    (folder / f"{split}.json").write_text(json.dumps(entries))


@pytest.fixture(scope="module")
def vqa(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vqa")
    for split, count in (("train", 10), ("val", 6), ("test", 9)):
        write_questions(folder, split, count)
    lines = ["IMAGE_FILE\tDESCRIPTION"]
    lines += [f"{path.name}\tA text about {path.stem}." for path in sorted((folder / "images").iterdir())]
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="latin-1")
    return folder


def run(vqa: Path, tiny: Path, command: str, out: str, *more: str) -> Path:
    option = "--data.init_args."
    cli.main([
        command, "--config=configs/vqa.yaml", f"--model.init_args.base.name={tiny}",
        *(f"{option}{split}_data={vqa / split}.json" for split in ("train", "val", "test")),
        f"{option}images_dir={vqa / 'images'}", f"{option}knowledge.mode=use",
        f"{option}knowledge.path={vqa / 'table.csv'}", f"{option}num_workers=0", f"{option}batch_size=2",
        f"{option}instruction={INSTRUCTION}", "--trainer.accelerator=cpu", "--trainer.max_epochs=1",
        "--trainer.accumulate_grad_batches=2", f"--trainer.default_root_dir={vqa / out}", f"--logs_dir={vqa / 'logs'}",
        "--model.init_args.max_new_tokens=4", "--trainer.precision=32-true", *more,
    ])  # fmt: skip
    return vqa / out


def test_fit_validate_test_and_predict(
    vqa: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, set[str]] = {}
    stage = ["fit"]
    original = QuestionEncoder.encode

    def noting(
        self: QuestionEncoder, question: Any, size: Any, answer: bool, description: bool = True
    ) -> tuple[list[int], int]:
        ids, start = original(self, question, size, answer, description)
        if size is not None and description and question.image:
            text = re.sub("(<image>)+", "<image>", self.tokenizer.decode(ids[:start], skip_special_tokens=False))
            seen.setdefault(f"{stage[0]} {question.image} {question.question}", set()).add(text)
        return ids, start

    monkeypatch.setattr(QuestionEncoder, "encode", noting)
    out = run(vqa, tiny, "fit", "out")
    adapter = f"--model.init_args.adapter={out / 'vqa_adapter_best'}"
    assert (out / "vqa_adapter_best" / "adapter_model.safetensors").is_file()
    assert "exact match" in "".join(capfd.readouterr())
    stage[0] = "validate"
    run(vqa, tiny, "validate", "out_val", adapter)
    stage[0] = "test"
    tested = run(vqa, tiny, "test", "out_test", adapter)
    printed = "".join(capfd.readouterr())
    stage[0] = "predict"
    predicted = run(vqa, tiny, "predict", "out_predict", adapter)

    # C8: one prompt for each question, whatever the stage
    asked = {key.split(" ", 1)[1] for key in seen}
    for question in asked:
        texts = {text for key, several in seen.items() if key.split(" ", 1)[1] == question for text in several}
        assert len(texts) == 1, question
        [text] = texts
        assert f"{INSTRUCTION}\n<image>\n" in text
        number = int(question.rsplit(" ", 1)[1])
        assert ("A text about" in text) == (number % 3 == 0)
    assert {key.split(" ", 1)[0] for key in seen} == {"fit", "validate", "test", "predict"}

    # every question once; the numbers of an independent script; the controls
    folder = tested / "evaluation_results"
    rows = [json.loads(line) for line in (folder / "detailed_results.jsonl").read_text().splitlines()]
    assert [row["sample_id"] for row in rows] == list(range(9))
    metrics = assert_numbers_are_the_scripts(folder)
    assert metrics["controls"]["no_image"]["samples"] == 9
    assert metrics["controls"]["no_description"]["samples"] == 3
    assert "Total Samples:          9" in printed
    predictions = [json.loads(line) for line in (predicted / "predictions.jsonl").read_text().splitlines()]
    said = {row["sample_id"]: row["response"] for row in rows}
    assert {row["sample_id"]: row["response"] for row in predictions} == said

    # answers do not depend on the batch
    alone = run(vqa, tiny, "test", "out_alone", adapter, "--data.init_args.batch_size=1")
    lines = (alone / "evaluation_results" / "detailed_results.jsonl").read_text().splitlines()
    assert {row["sample_id"]: row["response"] for row in map(json.loads, lines)} == said


@pytest.mark.parametrize(("said", "score"), [("1999", "0"), ("1623", "0.333333"), ("The 1623!", "0.333333")])
def test_c5_training_s_exact_match_is_of_what_was_generated(
    vqa: Path, tiny: Path, said: str, score: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """VizSage compared two empty strings where it had cut the numbers out, and called it a match."""
    rows = json.loads((vqa / "val.json").read_text())
    for number, row in enumerate(rows):
        row["answer"] = "1623" if number % 3 == 0 else "2 men"
    (vqa / "numbers.json").write_text(json.dumps(rows))
    monkeypatch.setattr(task, "answers", lambda llava, reader, batch, *more: [said] * len(batch["input_ids"]))
    run(vqa, tiny, "validate", "out_numbers", f"--data.init_args.val_data={vqa / 'numbers.json'}")
    assert f"val_exact_match: {score}\n" in capfd.readouterr().out


def test_c5_an_image_that_is_missing_is_listed_and_one_that_breaks_is_an_error(
    vqa: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((vqa / "test.json").read_text())[:6]
    rows[0]["image"], rows[5]["answer"] = "nowhere.jpg", "the"
    (vqa / "faulty.json").write_text(json.dumps(rows))
    broken = {rows[4]["image"], rows[5]["image"]}
    assert not broken & {row["image"] for row in rows[:4]}

    def opened(path: Path) -> Image.Image:
        if path.name in broken:
            raise BrokenImage("truncated")
        return open_image(path)

    monkeypatch.setattr(batches, "open_image", opened)
    out = run(vqa, tiny, "test", "out_faulty", f"--data.init_args.test_data={vqa / 'faulty.json'}")
    [listed] = [json.loads(line) for line in (out / "skipped_samples.jsonl").read_text().splitlines()]
    assert listed["reason"] == "image missing"
    folder = out / "evaluation_results"
    written = [json.loads(line) for line in (folder / "detailed_results.jsonl").read_text().splitlines()]
    assert [line["sample_id"] for line in written] == [1, 2, 3, 4, 5]
    assert [(line["response"] is None, line.get("error")) for line in written] == [
        *[(False, None)] * 3,
        *[(True, "truncated")] * 2,
    ]
    metrics = assert_numbers_are_the_scripts(folder)
    assert (metrics["total_samples"], metrics["errors"]) == (3, 2)
    assert metrics["correct_predictions"] + metrics["incorrect_predictions"] == 3
    assert "test_errors: 2\n" in capfd.readouterr().out


def test_one_question_that_is_too_long_is_listed_in_every_split(vqa: Path, tiny: Path) -> None:
    for split in ("train", "val", "test"):
        rows = json.loads((vqa / f"{split}.json").read_text())
        rows[2]["question"] = "colour " * 4000
        (vqa / f"{split}_long.json").write_text(json.dumps(rows))
    files = [f"--data.init_args.{split}_data={vqa / split}_long.json" for split in ("train", "val", "test")]
    counts = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"], "predict": ["test"]}
    for streaming in ("false", "true"):
        for command, splits in counts.items():
            more = [*files, f"--data.init_args.streaming={streaming}"]
            out = run(vqa, tiny, command, f"out_long_{command}_{streaming}", *more)
            listed = [json.loads(line) for line in (out / "skipped_samples.jsonl").read_text().splitlines()]
            assert [(one["split"], one["reason"]) for one in listed] == [(s, "too long for max_length") for s in splits]
            if command == "test":
                details = (out / "evaluation_results" / "detailed_results.jsonl").read_text().splitlines()
                assert [json.loads(line)["sample_id"] for line in details] == [0, 1, *range(3, 9)]


def test_a_control_whose_image_is_larger_is_asked_too(vqa: Path, tiny: Path) -> None:
    """Another's image may have more image tokens than fit; it is then shown at the own one's size."""
    rows = []
    for i, size in enumerate(((600, 600), (300, 40), (300, 40))):
        Image.new("RGB", size, COLOURS[i]).save(vqa / "images" / f"size_{i}.jpg")
        rows.append({"image": f"size_{i}.jpg", "question": "which colour", "answer": COLOURS[i]})
    (vqa / "sizes.json").write_text(json.dumps(rows))
    encoder = QuestionEncoder(question_reader(str(tiny)), INSTRUCTION, 10_000)
    question = Question(0, "size_0.jpg", "which colour", "red", False)
    fits_all = len(encoder.encode(question, (600, 600), True)[0])
    question = Question(1, "size_1.jpg", "which colour " * 9, "blue", False)
    rows[1]["question"] = question.question
    assert (
        len(encoder.encode(question, (600, 600), True)[0])
        > fits_all
        > len(encoder.encode(question, (300, 40), True)[0])
    )
    (vqa / "sizes.json").write_text(json.dumps(rows))
    for command, split in (("test", "test"), ("validate", "val")):
        more = [f"--data.init_args.{split}_data={vqa / 'sizes.json'}", f"--data.init_args.max_length={fits_all}"]
        out = run(vqa, tiny, command, f"out_sizes_{command}", *more)
        assert (out / "skipped_samples.jsonl").read_text() == ""
        if command == "test":
            details = (out / "evaluation_results" / "detailed_results.jsonl").read_text().splitlines()
            assert all("response_shuffled_images" in json.loads(line) for line in details)


class _Broken(Exception):
    pass


@pytest.mark.parametrize("end", [_Broken, KeyboardInterrupt, OSError])
def test_a_test_that_ends_early_leaves_its_answers_and_the_whole_results_of_before(
    vqa: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    out = run(vqa, tiny, "test", f"out_{end.__name__}")
    folder = out / "evaluation_results"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "partial_detailed_results.jsonl" not in before
    original = Vqa.test_step
    asked: list[int] = []

    def breaking(self: Vqa, batch: Any, batch_idx: int) -> None:
        if len(asked) == 3:
            raise end("the end")
        asked.append(len(batch["questions"]))
        original(self, batch, batch_idx)

    monkeypatch.setattr(Vqa, "test_step", breaking)
    with pytest.raises(BaseException):  # noqa: B017, PT011
        run(vqa, tiny, "test", f"out_{end.__name__}")
    partial = folder / "partial_detailed_results.jsonl"
    kept = [json.loads(line) for line in partial.read_text().splitlines()]
    assert len(kept) == sum(asked) > 3
    whole = {row["sample_id"]: row for row in map(json.loads, before["detailed_results.jsonl"].splitlines())}
    for row in kept:
        assert row["response"] == whole[row["sample_id"]]["response"]
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path != partial} == before


@pytest.mark.slow
def test_c3_two_processes_give_the_metrics_of_one(vqa: Path, tiny: Path) -> None:
    write_questions(vqa, "many", 25)
    arguments = [
        "test", "--config", str(ROOT / "configs/vqa.yaml"), f"--model.init_args.base.name={tiny}",
        f"--data.init_args.test_data={vqa / 'many.json'}", f"--data.init_args.images_dir={vqa / 'images'}",
        "--data.init_args.knowledge.mode=ignore", "--data.init_args.num_workers=0", "--data.init_args.batch_size=2",
        "--trainer.accelerator=cpu", "--model.init_args.max_new_tokens=3", f"--logs_dir={vqa / 'logs'}",
    ]  # fmt: skip
    metrics = []
    for processes in (1, 2):
        out = vqa / f"out_{processes}"
        command_line.run([*arguments, f"--trainer.default_root_dir={out}"], out, processes)
        folder = out / "evaluation_results"
        metrics.append(json.loads((folder / "metrics.json").read_text()))
        ids = [json.loads(line)["sample_id"] for line in (folder / "detailed_results.jsonl").read_text().splitlines()]
        assert ids == list(range(25))
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_c6_a_resumed_run_asks_what_an_unbroken_one_asks(vqa: Path, tiny: Path) -> None:
    write_questions(vqa, "long", 23)
    arguments = [
        "fit", "--config", str(ROOT / "configs/vqa.yaml"), f"--model.init_args.base.name={tiny}",
        f"--data.init_args.train_data={vqa / 'long.json'}", f"--data.init_args.val_data={vqa / 'val.json'}",
        f"--data.init_args.images_dir={vqa / 'images'}", "--data.init_args.knowledge.mode=ignore",
        "--data.init_args.num_workers=0", "--data.init_args.batch_size=2", "--trainer.accelerator=cpu",
        "--trainer.max_epochs=2", "--trainer.accumulate_grad_batches=2", "--trainer.log_every_n_steps=1",
        "--checkpoint.every_n_steps=1", "--model.init_args.max_new_tokens=2", "--early_stop.patience_share=null",
        "--model.init_args.scheduler=null",  # its length would be that of the part
    ]  # fmt: skip
    for name, parts in (("whole", [[]]), ("parts", [["--trainer.max_steps=4"], ["--resume"]])):
        out = vqa / name
        for part in parts:
            more = [f"--trainer.default_root_dir={out}", f"--logs_dir={out / 'logs'}"]
            command_line.run([*arguments, *more, *part], out, strategy=None)
    whole, resumed = command_line.losses(vqa / "whole"), command_line.losses(vqa / "parts")
    assert len(whole) == 12
    assert resumed == whole
