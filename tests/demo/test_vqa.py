"""The demo of VQA: what it asks, the toy that it asks, and its last word, which is said when the numbers say so."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from transformers import AutoProcessor, LlavaForConditionalGeneration

from lavic.demo import questions, toy_llava_1_5
from lavic.demo.products import BRANDS, COLOURS
from lavic.demo.questions import SIZES, drawn, split_images, words, write_questions
from lavic.demo.toy_llava_1_5 import build_1_5
from lavic.demo.vqa import demonstrate, show
from lavic.errors import UserError
from lavic.retrieval.passages import read_passages


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "IMAGES", {"train": 12, "val": 3, "test": 6})
        write_questions(folder)
    return folder


def test_no_look_is_both_taught_and_tested() -> None:
    looks = {split: {(p.kind, image.look) for p, image in shown} for split, shown in split_images().items()}
    assert not looks["test"] & (looks["train"] | looks["val"])
    names = [image.name for shown in split_images().values() for _, image in shown]
    assert len(set(names)) == len(names)
    assert len({kind for kind, _ in looks["test"]}) == 5


def test_what_needs_knowledge_stands_in_the_table_and_not_in_the_image(few: Path) -> None:
    table = read_passages(few / "knowledge.csv")
    shown = {image.name: image.look for some in split_images().values() for _, image in some}
    rows = [row for split in ("train", "val", "test") for row in json.loads((few / f"{split}.json").read_text())]
    assert Counter(row["need_external_knowledge"] for row in rows) == {False: 63, True: 21}
    for row in rows:
        look = shown.get(row["image"])
        assert Image.open(few / "Images" / row["image"]).size == (168, 168)
        if row["need_external_knowledge"]:
            assert row["answer"] in (*BRANDS, *SIZES)
            assert row["answer"] in table[row["image"]].replace(".", "").split()
        else:
            assert row["answer"] not in table[row["image"]]
            assert look is None or row["answer"] in (look.colour, look.pattern, look.form) or "on " in row["answer"]


def test_the_toy_is_a_llava_1_5_that_has_learned_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_llava_1_5, "NAMING_STEPS", 20)
    shown = split_images()["train"][:40]
    images, looks = [drawn(*one) for one in shown], [image.look for _, image in shown]
    build_1_5(tmp_path, words(shown), images, looks)
    llava = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    said = "[INST] Answer in a few words.\n<image>\nwhich colour is the rug [/INST] blue"
    inputs = processor(images=images[0], text=said, return_tensors="pt")
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 36
    ids = processor.tokenizer.convert_tokens_to_ids(["▁" + colour for colour in COLOURS])
    assert processor.tokenizer.unk_token_id not in ids
    with torch.no_grad():
        assert llava(**inputs).logits.shape[:2] == inputs["input_ids"].shape
        pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        seen = torch.stack(list(llava.model.get_image_features(pixels).pooler_output)).mean(dim=1)
        read = llava.lm_head(llava.model.language_model.norm(seen))[:, ids].argmax(dim=1)
    named = [COLOURS[i] == look.colour for i, look in zip(read.tolist(), looks, strict=True)]
    assert sum(named) > len(looks) / 2


def write_metrics(folder: Path, **controls: float) -> None:
    def numbers(score: float, **more: Any) -> dict[str, Any]:
        return {"exact_match_score": score, "exact_match_interval": [score - 0.05, score + 0.05], "samples": 9, **more}

    def group(names: tuple[str, ...]) -> dict[str, Any]:
        shown = {name: numbers(controls.get(name, 0.2)) for name in names}
        return numbers(0.6, majority={"answer": "red", "exact_match_score": 0.1}, controls=shown)

    results = folder / "evaluation_results"
    results.mkdir(exist_ok=True)
    metrics = {
        "total_samples": 18, "images": 5,
        "without_external_knowledge": group(("no_image", "shuffled_images")),
        "with_external_knowledge": group(("no_image", "shuffled_images", "no_description")),
    }  # fmt: skip
    (results / "metrics.json").write_text(json.dumps(metrics))
    row = {"image": "1.jpg", "question": "which colour", "response": "[red]", "ground_truth": "blue"}
    (results / "detailed_results.jsonl").write_text(json.dumps(row) + "\n")


def shown(folder: Path) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(folder, console, 60)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_success_needs_intervals_that_do_not_overlap(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    said = shown(tmp_path)
    assert "above all controls" in said
    assert "[red]  (right: blue)" in said
    assert "0.600" in said
    assert "0.550 to 0.650" in said
    for control, told in (("no_image", "without the image"), ("no_description", "without the table's text")):
        write_metrics(tmp_path, **{control: 0.52})
        with pytest.raises(UserError, match=f"not clearly better than {told};"):
            shown(tmp_path)


def test_the_steps_are_commands_that_a_user_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "IMAGES", {"train": 12, "val": 3, "test": 6})
    monkeypatch.setattr(toy_llava_1_5, "NAMING_STEPS", 1)
    typed: list[list[str]] = []

    def run(module: str, *arguments: object) -> None:
        typed.append([module, *map(str, arguments)])
        write_metrics(tmp_path / "vqa")

    demonstrate(tmp_path, 1, ["--trainer.max_epochs=2"], run, Console(file=io.StringIO()))
    assert [words[:2] for words in typed] == [["lavic", "fit"], ["lavic", "test"]]
    assert "--trainer.max_epochs=2" in typed[0]
    assert "43" in typed[0]
    for words_ in typed:
        paths = [Path(word) for word in words_ if word.startswith(str(tmp_path)) and "adapter" not in word]
        assert len(paths) == 7
        assert all(path.exists() for path in paths), paths
