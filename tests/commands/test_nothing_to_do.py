"""Every command: nothing at all where something was asked for is one sentence and exit status 2, never a success."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import crawl.cli
import lavic.__main__

DATA, MODEL = "--data.init_args.", "--model.init_args."
TITLES = {"A": {"title": "Mug"}, "B": {"title": "Lamp"}}
NAMED = {item: {**meta, "images": [{"large": "http://127.0.0.1:9/x.jpg"}]} for item, meta in TITLES.items()}
EMPTY = {item: {**meta, "images": []} for item, meta in TITLES.items()}
GONE = {
    item: {**meta, "image_descriptions_llava_cleaned": {f"{item}_0.jpg": "A text."}} for item, meta in EMPTY.items()
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iterator[None]:
    """A folder of inputs that hold nothing, each in its own way, from which the commands are run."""
    for name, items in {"titles": TITLES, "named": NAMED, "empty": EMPTY, "withdrawn": GONE, "no_items": {}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(items))
    (tmp_path / "images").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "good").mkdir()
    for item in TITLES:
        (tmp_path / "broken" / f"{item}_0.jpg").write_bytes(b"no image")
        Image.new("RGB", (40, 40), "red").save(tmp_path / "good" / f"{item}_0.jpg")
    (tmp_path / "nothing.jsonl").write_text("")
    (tmp_path / "no_rows.csv").write_text("id,title\n")
    (tmp_path / "no_ids.csv").write_text("id,title\n,Mug\n")
    (tmp_path / "foreign.jsonl").write_text('{"context": "zzz qqq", "gt_items": ["A"]}\n')
    (tmp_path / "no_records.json").write_text("[]")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "valid.jsonl").write_text("")
    (tmp_path / "shop" / "test.jsonl").write_text("")
    (tmp_path / "shop" / "train.jsonl").write_text("")
    (tmp_path / "model").symlink_to(tiny)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAVIC_RUN_ID", "training_20260101_000000")
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before


CPU = ("--trainer.accelerator", "cpu", "--trainer.default_root_dir", "out")
BASE = (f"{MODEL}base.name", "model")
DISTILL = ("--config", "distill", *BASE, *CPU, f"{DATA}num_workers", "0")
SHOP = (
    "--config", "recommend", *BASE, f"{MODEL}distilled", "null", f"{DATA}data_dir", ".", f"{DATA}categories", "[shop]",
    f"{DATA}item_store", "store", f"{DATA}num_workers", "0",
)  # fmt: skip
DESCRIBE = ("describe", "--config", "describe", "--base.name", "model", "--num_workers", "0", "--max_new_tokens", "3")


def stage1(command: str, metadata: str, images: str) -> tuple[str, ...]:
    paths = {"train_data": metadata, "val_data": metadata, "train_images_dir": images, "val_images_dir": images}
    return (command, *DISTILL, *(part for name, path in paths.items() for part in (f"{DATA}{name}", path)))


def shop(command: str, metadata: str, images: str, *more: str) -> tuple[str, ...]:
    return (command, *SHOP, f"{DATA}metadata", f"[{metadata}]", f"{DATA}images_dirs", f"[{images}]", *more)


def instruct(command: str) -> tuple[str, ...]:
    classes = ("--model", "lavic.tasks.instruction.Instruction", "--data", "lavic.tasks.instruction.InstructionData")
    files = [part for name in ("train_data", "val_data") for part in (f"{DATA}{name}", "no_records.json")]
    part = (f"{MODEL}trainable", "{language: lora}")
    return (command, *classes, *part, *BASE, *CPU, *files, f"{DATA}images_dir", "good", f"{DATA}num_workers", "0")


def vqa(command: str) -> tuple[str, ...]:
    files = [part for name in ("train_data", "val_data", "test_data") for part in (f"{DATA}{name}", "no_records.json")]
    return (command, "--config", "vqa", *BASE, *CPU, *files, f"{DATA}images_dir", "good", f"{DATA}num_workers", "0")


CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "import: no rows": (("import", "no_rows.csv", "--out", "o"), "No product could be read"),
    "import: no usable row": (("import", "no_ids.csv", "--out", "o"), "No product could be read"),
    "describe: no item": ((*DESCRIBE, "--metadata", "no_items.json", "--images_dir", "good"), "No item was found"),
    "describe: says nothing of images": (
        (*DESCRIBE, "--metadata", "titles.json", "--images_dir", "good"), "No image is named in titles.json"),
    "describe: no image": ((*DESCRIBE, "--metadata", "empty.json", "--images_dir", "good"), "No image is named"),
    "describe: none there": (
        (*DESCRIBE, "--metadata", "named.json", "--images_dir", "images"), "None of the 2 images to describe is in"),
    "describe: all broken": (
        (*DESCRIBE, "--metadata", "named.json", "--images_dir", "broken"), "None of the 2 images of named.json could"),
    "embed: none there": (shop("embed", "named.json", "images"), "None of the 2 items has an image in images"),
    "embed: withdrawn": (shop("embed", "empty.json", "good"), "None of the 2 items has an image in good"),
    "embed: all broken": (shop("embed", "named.json", "broken"), "None of the 2 images could be embedded"),
    "embed: no item": (shop("embed", "no_items.json", "good"), "No item was found"),
    "retrieve: no conversation": (
        ("retrieve", "--conversations", "nothing.jsonl", "--metadata", '["titles.json"]', "--output", "o.jsonl",
         "--k", "1"), "No conversation is in nothing.jsonl"),
    "retrieve: nothing matches": (
        ("retrieve", "--conversations", "foreign.jsonl", "--metadata", '["titles.json"]', "--output", "o.jsonl",
         "--k", "1"), "Nothing in the catalogue matches"),
    "retrieve: no descriptions": (
        ("retrieve", "--conversations", "foreign.jsonl", "--metadata", '["titles.json"]', "--output", "o.jsonl",
         "--k", "1", "--index", "descriptions"), "No item of titles.json has a description"),
    **{f"{command}: none described": (stage1(command, "named.json", "good"), "No usable sample is in named.json")
       for command in ("fit", "validate", "test", "predict")},
    **{f"{command}: withdrawn": (stage1(command, "withdrawn.json", "good"), "No usable sample is in withdrawn.json")
       for command in ("fit", "validate", "test", "predict")},
    **{f"{command}: no conversation": (shop(command, "named.json", "good", *CPU), "No line of shop")
       for command in ("fit", "validate", "test", "predict")},
    **{f"{command}: no record": (instruct(command), "no_records.json")
       for command in ("fit", "validate", "test", "predict")},
    **{f"{command}: no question": (vqa(command), "No question of no_records.json can be asked")
       for command in ("fit", "validate", "test", "predict")},
    "compare: no run": (("compare", "runs", "runs"), "runs holds no results of a test"),
    "monitor: no run": (("monitor", "--logs", "runs", "--summary"), "runs"),
    "web: nothing to serve": (("web",), "There is nothing to serve"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_nothing_at_all_is_no_success(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv, said = CASES[case]
    status = lavic.__main__.main(list(argv))
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    [sentence] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said in sentence
    assert "Traceback" not in err
    assert not Path("o.jsonl").exists(), "nothing was found, and nothing is written"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("named.json", "--allow-host 127.0.0.1:9 would allow it"),
        ("titles.json", "No image is named in titles.json"),
        ("empty.json", "No image is named in empty.json"),
        ("no_items.json", "No item was found in no_items.json"),
        ("nothing.jsonl", "No item was found in nothing.jsonl"),
    ],
)
def test_a_crawl_of_nothing_is_no_success(metadata: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert crawl.cli.main(["--source", metadata, "--out", "fetched"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_nothing_left_to_do_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    """All is there already: that is what was asked for."""
    assert lavic.__main__.main([*DESCRIBE, "--metadata", "named.json", "--images_dir", "good"]) == 0
    assert lavic.__main__.main([*DESCRIBE, "--metadata", "named.json", "--images_dir", "good"]) == 0
    more = ["--metadata", "named_described.json", "--images_dir", "good", "--output", "again.json"]
    assert lavic.__main__.main([*DESCRIBE, *more]) == 0
    assert "0 images described -> again.json" in capsys.readouterr().out
    for _ in range(2):
        assert lavic.__main__.main(list(shop("embed", "named.json", "good"))) == 0
