"""Instruction records of every form and oddity: each is used or listed, by the one stated rule."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lavic.catalogue.records import Record, Turn, read_records
from lavic.files.rejected import Rejected

SHARED = Path(__file__).parents[2].parent / "shared" / "systems" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")

Q, A = ("human", "What?"), ("gpt", "A dog.")
BREED = [("human", "Breed?"), ("gpt", "Golden.")]


def record(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"id": "7", "conversations": [{"from": role, "value": text} for role, text in turns], **more}


def read(tmp_path: Path, *records: Any, name: str = "records.json") -> list[Record | Rejected]:
    path = tmp_path / name
    text = "".join(json.dumps(r) + "\n" for r in records) if name.endswith("l") else json.dumps(list(records))
    path.write_text(text, encoding="utf-8")
    return list(read_records(path))


def usable(tmp_path: Path, value: Any) -> Record:
    [found] = read(tmp_path, value)
    assert isinstance(found, Record), found
    return found


def said(found: Record) -> list[tuple[int, str]]:
    return [(turn.images, turn.text) for turn in found.turns]


def test_both_forms_are_one(tmp_path: Path) -> None:
    ours = record(("human", "What?\n<image>"), A, image="a.jpg", system_prompt="Be brief.")
    messages = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>What?"},
        {"role": "assistant", "content": "A dog."},
    ]  # fmt: skip
    theirs = {"id": 7, "messages": messages, "images": ["a.jpg"]}
    expected = Record("7", (Turn("user", "What?", 1), Turn("assistant", "A dog.")), ("a.jpg",), "Be brief.")
    assert read(tmp_path, ours, theirs) == [expected, expected]
    assert read(tmp_path, ours, theirs, name="records.jsonl") == [expected, expected]
    path = tmp_path / "records.json.gz"
    path.write_bytes(gzip.compress(json.dumps([ours]).encode("utf-16")))
    assert list(read_records(path)) == [expected]


def test_ids_are_text_and_a_record_without_one_has_its_number(tmp_path: Path) -> None:
    ids = [r.id for r in read(tmp_path, record(Q, A, id="000000033471"), record(Q, A, id=12), record(Q, A, id=None))
           if isinstance(r, Record)]  # fmt: skip
    assert ids == ["000000033471", "12", "3"]


@pytest.mark.parametrize(
    ("value", "turns", "images", "change"),
    [
        (record(("human", " <image> \nWhat? "), A, image="a.jpg"), [(1, "What?"), (0, "A dog.")], ("a.jpg",), ""),
        (record(("human", " What? "), A), [(0, " What? "), (0, "A dog.")], (), ""),
        (record(("human", "<image>What<image>?"), A, image=["a", "b"]), [(2, "What?"), (0, "A dog.")], ("a", "b"), ""),
        (
            record(("human", "<image>\nWhat?"), A, ("human", "<image>\nBreed?"), BREED[1], image="a.jpg"),
            [(1, "What?"), (0, "A dog."), (0, "Breed?"), (0, "Golden.")], ("a.jpg",), "repeated",
        ),
        (record(Q, A, image="a.jpg"), [(1, "What?"), (0, "A dog.")], ("a.jpg",), "image without <image>"),
        (record(("gpt", "Hi!"), Q, A, image="a"), [(1, "What?"), (0, "A dog.")], ("a",), "without question"),
        (record(Q, A, ("human", "Breed?")), [(0, "What?"), (0, "A dog.")], (), "question without answer"),
        (record(Q, A, ("human", "Breed?"), ("gpt", " \n"), *BREED), [(0, "What?"), (0, "A dog.")], (), "empty answer"),
        (
            record(Q, A, ("human", "<image>And here?"), image="a.jpg"),
            [(0, "What?"), (0, "A dog.")], (), "question without answer",
        ),
    ],
)  # fmt: skip
def test_what_is_odd_is_settled(tmp_path: Path, value: Any, turns: Any, images: Any, change: str) -> None:
    found = usable(tmp_path, value)
    assert said(found) == turns
    assert found.images == images
    assert sum(turn.images for turn in found.turns) == len(found.images)
    assert (change in " ".join(found.changes)) if change else not found.changes


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (record(("human", "<image>What?"), A), "<image> but no image"),
        (record(Q, ("gpt", "<image>"), image="a.jpg"), "<image> in an answer"),
        (record(("gpt", "<image>"), Q, A, image="a.jpg"), "<image> in an answer"),
        (record(("human", "<image>" * 3), A, image=["a", "b"]), "3 x <image> for 2 images"),
        (record(("human", "<image>"), A, image=["a", "b"]), "1 x <image> for 2 images"),
        (record(Q, Q, A), "two turns of the user in a row"),
        (record(Q, A, A), "two turns of the assistant in a row"),
        (record(("system", "be nice"), Q, A), "unknown role 'system'"),
        (record(Q, ("tool", "x")), "unknown role 'tool'"),
        (record(Q, ("gpt", "")), "no question with an answer"),
        (record(Q), "no question with an answer"),
        (record(A), "no question with an answer"),
        (record(), "conversations is empty"),
        (record(Q, A, image=3), "image is not a name"),
        (record(Q, A, image="../a.jpg"), "image is not inside"),
        (record(Q, A, image="/a.jpg"), "image is not inside"),
        (record(Q, A, system=[1]), "system is not text"),
        ({"id": "7"}, "neither conversations nor messages"),
        ({"id": "7", "conversations": {"from": "human"}}, "not a list"),
        ({"id": "7", "conversations": ["What?"]}, "turn 1 is not an object"),
        ({"id": "7", "conversations": [{"from": "human", "value": 3}]}, "not text"),
        ("What?", "not an object"),
        (None, "not an object"),
    ],
)
def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path, value: Any, reason: str) -> None:
    good = record(Q, A, id="good")
    first, found, last = read(tmp_path, good, value, good)
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert isinstance(found, Rejected), found
    assert reason in found.reason
    assert "entry 2" in found.where


def test_a_bad_line_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record(Q, A)) + "\n{broken\n" + json.dumps(record(Q, A)) + "\n")
    found = list(read_records(path))
    assert [type(r) for r in found] == [Record, Rejected, Record]


@needs_shared
def test_of_the_real_files_every_record_is_used() -> None:
    records = list(read_records(SHARED / "llava" / "llava_instruct_50.json"))
    assert len(records) == 50
    assert all(isinstance(r, Record) and sum(t.images for t in r.turns) == len(r.images) == 1 for r in records)
    counts = {}
    for path in sorted((SHARED / "examples").glob("*.json")):
        records = list(read_records(path))
        assert len(records) == len(json.loads(path.read_text()))
        assert all(isinstance(r, Record) for r in records), path
        counts[path.stem] = [len(r.images) for r in records if isinstance(r, Record)]
    assert counts["multi_images"] == [2, 4]
    assert counts["mllm_demo"][0] == 2
    assert 0 in counts["single_image_has_text_only"]
