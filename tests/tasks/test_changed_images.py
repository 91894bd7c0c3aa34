"""A table follows the images that it read: missing, broken, replaced or removed, in any folder, in every task."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lavic.batching.step_plan import MicroBatch
from lavic.errors import UserError
from lavic.model.image_entry import ImageEntry
from lavic.tasks.distillation.data import DistillationData
from lavic.tasks.instruction.data import InstructionData
from lavic.tasks.vqa.data import VqaData

SMALL, LARGE = (300, 40), (600, 600)  # another number of views and of image tokens
TASKS = ("distillation", "instruction", "instruction streaming", "vqa", "vqa streaming")
FOLDERS = ("", "coco/train2017/", "deep/er/and/deeper/")
Change = Callable[[Path], object]


def draw(path: Path, size: tuple[int, int] = SMALL) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def names_of(folder: str) -> list[str]:
    return [f"{folder}a_0.jpg", f"{folder}b_0.jpg", "c_0.jpg"]


def write_files(tmp_path: Path, names: list[str]) -> None:
    images = tmp_path / "images"
    for name in names:
        draw(images / name)
    text = "What does it show?"
    told = dict.fromkeys(names, "It is teal.")
    described = {n: {"title": "A towel", "image_descriptions_llava_cleaned": {n: told[n]}} for n in names}
    (tmp_path / "items.json").write_text(json.dumps(described))
    turns = [{"from": "human", "value": f"<image>\n{text}"}, {"from": "gpt", "value": "A towel."}]
    (tmp_path / "records.json").write_text(
        json.dumps([{"id": name, "image": name, "conversations": turns} for name in names])
    )
    (tmp_path / "questions.json").write_text(
        json.dumps([{"image": name, "question": text, "answer": "towel"} for name in names])
    )


def data_of(task: str, tmp_path: Path, tiny: Path, **more: Any) -> Any:
    kind, _, streaming = task.partition(" ")
    images = tmp_path / "images"
    options: dict[str, Any] = {"num_workers": 0, "model_name": str(tiny), "cache_dir": tmp_path / "cache", **more}
    data: Any
    if kind == "distillation":
        items = tmp_path / "items.json"
        data = DistillationData(items, items, images, images, views="anyres", **options)
    elif kind == "instruction":
        records, entry = tmp_path / "records.json", ImageEntry(tokens="patch")
        options |= {"template": "mistral", "entry": entry, "streaming": bool(streaming)}
        data = InstructionData(records, records, images, **options)
    else:
        asked = tmp_path / "questions.json"
        data = VqaData(asked, asked, asked, images, streaming=bool(streaming), **options)
    data.trainer = SimpleNamespace(
        accumulate_grad_batches=1, world_size=1, global_rank=0, is_global_zero=True,
        default_root_dir=str(tmp_path / "out"), state=SimpleNamespace(fn="fit"),
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    return data


def used(data: Any) -> list[str]:
    """The images of the training table."""
    table = data.tables["train"]
    if hasattr(table, "row"):
        rows = [table.row(i) for i in range(len(table))]
        return [row["image"] if "image" in row else row["images"][0] for row in rows]
    return [table[i].image for i in range(len(table))]


def rejected(data: Any) -> list[str]:
    return [one.reason for one in data.left_out if one.split == "train"]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("task", TASKS)
def test_an_image_that_comes_is_mended_or_goes_is_seen_at_the_next_start(
    task: str, folder: str, tiny: Path, tmp_path: Path
) -> None:
    names = names_of(folder)
    write_files(tmp_path, names)
    changed = tmp_path / "images" / names[1]
    whole = changed.read_bytes()
    others = [names[0], names[2]]
    states: list[tuple[Change, list[str], list[str]]] = [
        (lambda path: path.unlink(), others, ["image missing"]),
        (lambda path: path.write_bytes(whole), names, []),
        (cut, others, ["image broken"]),
        (lambda path: path.write_bytes(whole), names, []),
        (lambda path: path.write_bytes(b""), others, ["image empty"]),
        (lambda path: draw(path, LARGE), names, []),
        (lambda path: path.unlink(), others, ["image missing"]),
    ]
    for change, expected, reasons in states:
        change(changed)
        for _ in range(2):  # made, and found
            data = data_of(task, tmp_path, tiny)
            assert used(data) == expected
            assert rejected(data) == reasons


@pytest.mark.parametrize("folder", FOLDERS[:2])
@pytest.mark.parametrize("task", TASKS[:3])
def test_one_that_is_replaced_has_its_new_size(task: str, folder: str, tiny: Path, tmp_path: Path) -> None:
    names = names_of(folder)
    write_files(tmp_path, names)
    before = data_of(task, tmp_path, tiny).tables["train"].row(1)
    draw(tmp_path / "images" / names[1], LARGE)
    data = data_of(task, tmp_path, tiny)
    after = data.tables["train"].row(1)
    column = "views" if task == "distillation" else "image_tokens"
    assert before[column] != after[column]
    if column == "image_tokens":
        assert after["sizes"] == [LARGE]
    batch = data.dataset("train")[MicroBatch((1, 2), 1)]
    assert len(batch["views"]) > len(data.dataset("train")[MicroBatch((2,), 1)]["views"])


@pytest.mark.parametrize("task", TASKS[3:])
def test_a_question_whose_image_gets_too_large_is_listed(task: str, tiny: Path, tmp_path: Path) -> None:
    names = names_of("coco/")
    write_files(tmp_path, names)
    data = data_of(task, tmp_path, tiny)
    question = data.tables["train"][1]
    small, large = (len(data.encoder.encode(question, size, True)[0]) for size in (SMALL, LARGE))
    assert small < large
    assert used(data_of(task, tmp_path, tiny, max_length=small)) == names
    draw(tmp_path / "images" / names[1], LARGE)
    data = data_of(task, tmp_path, tiny, max_length=small)
    assert (used(data), rejected(data)) == ([names[0], names[2]], ["too long for max_length"])
    assert used(data_of(task, tmp_path, tiny, max_length=large)) == names


def test_a_file_that_no_sample_names_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path, names_of(""))
    tables = {task: data_of(task, tmp_path, tiny).tables["train"].path for task in TASKS}
    draw(tmp_path / "images" / "new.jpg")
    assert {task: data_of(task, tmp_path, tiny).tables["train"].path for task in TASKS} == tables


@pytest.mark.parametrize("task", TASKS[:3])
def test_one_that_changes_while_a_run_uses_it_ends_it_in_a_sentence(task: str, tiny: Path, tmp_path: Path) -> None:
    names = names_of("coco/")
    write_files(tmp_path, names)
    data = data_of(task, tmp_path, tiny)
    draw(tmp_path / "images" / names[0], LARGE)
    with pytest.raises(UserError, match=r"a_0\.jpg .*when the run began .*--resume"):
        data.dataset("train")[MicroBatch((0, 1), 1)]
    with pytest.raises(UserError, match=r"a_0\.jpg"):
        data.dataset("val").prompts([0])


def test_another_run_keeps_the_table_that_it_has_open(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path, names_of(""))
    open_one = data_of("instruction streaming", tmp_path, tiny).tables["train"]
    (tmp_path / "images" / "b_0.jpg").unlink()
    again = data_of("instruction streaming", tmp_path, tiny).tables["train"]
    assert (len(open_one), len(again)) == (3, 2)
    assert open_one.row(1)["images"] == ["b_0.jpg"]
