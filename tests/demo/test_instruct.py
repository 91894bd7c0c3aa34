"""The demo of instruction tuning: what it talks about, the parts it composes, and when its last word is said."""

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel

from lavic.catalogue.records import Record, read_records
from lavic.demo import image_talks, instruct, toy_parts
from lavic.demo.image_talks import ASKED, images, talk, write_talks
from lavic.demo.instruct import ADAPTER, demonstrate, show_answers, show_plain_answers, show_validations
from lavic.demo.toy_parts import _text, _words
from lavic.errors import UserError
from lavic.model.chat_text import ChatText
from lavic.model.composing import compose
from lavic.model.templates import TEMPLATES
from tests.training.command_line import ROOT, run

FEW = {"train": 6, "val": 2, "test": 8}


def few(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(image_talks, "IMAGES", FEW)
    patch.setattr(image_talks, "SEEN", 20)
    patch.setattr(image_talks, "TEXTS", {"train": 3, "val": 1})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talks")
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        write_talks(folder)
    return folder


def test_no_look_is_both_taught_and_asked_about() -> None:
    looks = {split: {(p.kind, image.look) for p, image in shown} for split, shown in images().items()}
    assert len(images()["train"]) > image_talks.IMAGES["train"]
    assert not looks["test"] & (looks["train"] | looks["val"])


def test_every_record_is_used_as_it_is(data: Path) -> None:
    for name in ("captions", "captions_val", "train", "val", "questions", "shuffled"):
        for record in read_records(data / f"{name}.json"):
            assert isinstance(record, Record)
            assert not record.changes
            assert all((data / "Images" / image).is_file() for image in record.images)
    train = [record for record in read_records(data / "train.json") if isinstance(record, Record)]
    assert Counter(len(record.images) for record in train) == {1: 6, 0: 3}
    assert all(len(record.turns) == 6 for record in train)
    for record in train:
        if not record.images:
            told = record.turns[0].text
            answers = [turn.text for turn in record.turns[1::2]]
            assert all(answer.removeprefix("on ") in told for answer in answers), "the text says what the image would"


def test_questions_go_with_what_the_image_shows_and_the_control_with_another(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch)
    looks = {image.name: image.look for _, image in images()["test"]}
    asked, shuffled = (json.loads((data / f"{name}.json").read_text()) for name in ("questions", "shuffled"))
    assert Counter(len(record["conversations"]) // 2 for record in asked) == dict.fromkeys(ASKED, 8)
    for record, other in zip(asked, shuffled, strict=True):
        assert {**record, "image": ""} == {**other, "image": ""}
        assert record["image"] != other["image"]
        look = looks[record["image"]]
        for turn in record["conversations"][1::2]:
            assert turn["value"] in (look.colour, look.pattern, look.form) or turn["value"].startswith("on ")
    assert Counter(record["image"] for record in shuffled) == Counter(record["image"] for record in asked)


def test_llama_reads_a_list_of_words_where_llava_has_its_image(composed_toy: Path) -> None:
    llama = composed_toy.parent / "llama"
    tokenizer = AutoTokenizer.from_pretrained(llama)
    assert AutoModelForCausalLM.from_pretrained(llama).vocab_size >= len(tokenizer)
    chat, rng = ChatText(tokenizer, TEMPLATES["vicuna_v1"]), Random(0)
    shown = images()["train"][0]
    kinds = set()
    for _ in range(20):
        ids, runs = _text(chat, shown, rng)
        text, learned = tokenizer.decode(ids), [tokenizer.decode(ids[start:stop]) for start, stop in runs]
        assert "<image>" not in text
        assert tokenizer.unk_token_id not in ids
        if len(runs) == 1:  # as align's template: a caption and the end of its line
            before, _, after = text.rpartition(learned[0])
            assert (before.split()[0], after, learned[0][-1]) == ("<s>", "", "\n")
            words = before.removeprefix("<s>").split()
        else:
            assert len(runs) == 3
            assert all(said.strip().endswith("</s>") for said in learned)
            answers = {answer for _ in range(20) for _, answer in talk(shown, rng)}
            assert {said.strip().removesuffix("</s>") for said in learned} <= answers
            words = text.partition("USER:")[2].partition("\n")[0].split()
        assert set(words) == set(_words(shown))
        kinds.add(len(runs))
    assert kinds == {1, 3}


def test_clip_is_loaded_by_its_own_class_and_tells_images_apart(composed_toy: Path) -> None:
    tower = CLIPVisionModel.from_pretrained(composed_toy.parent / "clip")
    side = tower.config.image_size
    with torch.no_grad():
        one, other = tower(torch.stack([torch.ones(3, side, side), -torch.ones(3, side, side)])).pooler_output
    assert (one - other).abs().max() > 0.1


def write_answers(output: Path, right: dict[str, float]) -> None:
    """Predictions for the questions in `output/data`, a share of them right."""
    asked = json.loads((output / "data" / "questions.json").read_text())
    for name, share in right.items():
        (output / name).mkdir(exist_ok=True)
        lines = []
        for place, record in enumerate(asked):
            answer = record["conversations"][-1]["value"]
            said = answer if place < share * len(asked) else f"[{answer}]"
            lines.append(json.dumps({"id": record["id"], "answer": answer, "generated": said}) + "\n")
        (output / name / "predictions.jsonl").write_text("".join(reversed(lines)))  # predict sorts them by length


def answered(output: Path, asked: list[dict[str, Any]]) -> list[str]:
    """What the written predictions say to some questions."""
    lines = [json.loads(line) for line in (output / "questions" / "predictions.jsonl").open()]
    said = {line["id"]: line["generated"] for line in lines}
    return [said[record["id"]] for record in asked]


def shown(show: Any, *arguments: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(*arguments, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_success_needs_intervals_that_do_not_overlap(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    write_answers(tmp_path, {"questions": 0.875, "shuffled": 0.125})
    said = shown(show_answers, tmp_path)
    assert "the intervals do not overlap" in said
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│" in line]
    assert rows[0][:4] == ["with the image", "16", "14", "0.875"]
    assert rows[3][:4] == ["with another image", "16", "2", "0.125"]
    write_answers(tmp_path, {"questions": 0.875, "shuffled": 0.375})
    with pytest.raises(UserError, match=r"0\.875 of the questions right and, with another image, 0\.375"):
        shown(show_answers, tmp_path)


def validation(gain: float) -> dict[str, Any]:
    return {"event": "validation", "epoch": 1.0, "val_loss": 0.5, "val_perplexity": 1.65, "visual_gain": gain,
            "visual_gain_blank": 0.4}  # fmt: skip


def test_a_stage_that_has_not_learned_to_look_ends_the_demo() -> None:
    assert "0.300" in shown(show_validations, "First stage", [validation(-0.1), validation(0.3)])
    for gain in (0.0, -0.1, float("nan")):
        with pytest.raises(UserError, match="first stage did not learn to look"):
            shown(show_validations, "First stage", [validation(0.3), validation(gain)])


def test_plain_transformers_says_what_predict_says(composed_toy: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(composed_toy, tmp_path / "exported")
    output = tmp_path / "questions"
    run(
        [
            "predict", f"--config={ROOT}/configs/instruct.yaml", f"--config={ROOT}/configs/demo_instruct.yaml",
            f"--model.init_args.base.name={composed_toy}", "--model.init_args.projector=null",
            f"--data.init_args.questions={data / 'questions.json'}", f"--data.init_args.images_dir={data / 'Images'}",
            "--data.init_args.num_workers=0", f"--trainer.default_root_dir={output}", f"--logs_dir={output / 'logs'}",
        ],
        output,
    )  # fmt: skip
    answers = [json.loads(line)["generated"] for line in (output / "predictions.jsonl").open()]
    assert len(set(answers)) > 1, "all the same would compare nothing"
    assert "8 of them, gives 8 times the same answer" in shown(show_plain_answers, tmp_path)
    write_answers(tmp_path, {"questions": 1})
    with pytest.raises(UserError, match="is not the model that was tuned"):
        shown(show_plain_answers, tmp_path)


def test_the_steps_are_commands_that_a_user_types(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(toy_parts, "VISION_STEPS", 1)
    monkeypatch.setattr(toy_parts, "TEXT_STEPS", 1)
    output = tmp_path / "instruct"
    monkeypatch.setattr(instruct, "plain_answers", lambda _, asked, __: answered(output, asked))
    (output / "exported").mkdir(parents=True)  # of an earlier demo
    typed: list[list[str]] = []

    def leave(module: str, *arguments: object, environment: dict[str, str] | None = None) -> None:
        """Does what a command does to the files that later ones are given."""
        words = [module, *map(str, arguments)]
        typed.append(words)
        made = Path(words[words.index("--out" if "--out" in words else "--trainer.default_root_dir") + 1])
        paths = [Path(word) for word in words if word.startswith(str(tmp_path)) and Path(word) != made]
        assert all(path.exists() for path in paths), words
        if words[1] == "compose":
            vision, language = (words[words.index(flag) + 1] for flag in ("--vision", "--language"))
            compose(vision, language, made)
        elif words[1] == "fit":
            assert environment is not None
            (made / ADAPTER).mkdir(parents=True)
            logs = tmp_path / "logs" / environment["LAVIC_RUN_ID"]
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "run.json").write_text('{"started": 0}')
            (logs / "metrics.jsonl").write_text(json.dumps(validation(0.3)) + "\n")
        elif words[1] == "predict":
            write_answers(output, {made.name: 0.9 if made.name == "questions" else 0.1})
        else:
            assert not made.exists()

    demonstrate(tmp_path, 1, ["--trainer.max_epochs=2"], leave, Console(file=io.StringIO()))
    assert [words[1] for words in typed] == ["compose", "fit", "fit", "predict", "predict", "export"]
    assert [("--trainer.max_epochs=2" in words) for words in typed] == [False, False, True, False, False, False]
    assert [words.count("43") for words in typed[1:5]] == [1] * 4
    aligned = str(output / "aligned" / ADAPTER)
    assert [aligned in words for words in typed] == [False, False, True, True, True, False]
