"""Entries in a list within an object, and in every other shape, with what stands beside the list."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavic.errors import UserError
from lavic.files.json_entries import Entry
from lavic.files.json_lists import read_listed
from lavic.files.json_places import PlacedEntries

NAMES = ("questions", "data")


def read(path: Path, text: str) -> tuple[list[Any], dict[str, Any]]:
    path.write_text(text)
    header: dict[str, Any] = {}
    found = [entry for entry in read_listed(path, NAMES, header, "question") if isinstance(entry, Entry)]
    places = PlacedEntries(path, path.parent)
    assert [places.read(*entry.place) for entry in found] == [entry.value for entry in found]
    return [(entry.key, entry.value) for entry in found], header


def test_a_list_with_members_before_and_behind(tmp_path: Path) -> None:
    text = '{"info": {"a": [1]}, "n": 3, "data": [{"é": 1}, {}, 7], "questions": [8], "last": "x"}'
    found, header = read(tmp_path / "x.json", text)
    assert found == [(None, {"é": 1}), (None, {}), (None, 7)]
    assert header == {"info": {"a": [1]}, "n": 3, "questions": [8], "last": "x"}


@pytest.mark.parametrize("count", [1, 3, 16, 17, 40])
def test_an_object_by_ids(tmp_path: Path, count: int) -> None:
    entries = {str(n): {"question": n} for n in range(count)}
    found, header = read(tmp_path / "x.json", json.dumps(entries))
    assert found == list(entries.items())
    assert header == {}


def test_an_object_by_ids_of_which_one_is_named_as_a_list(tmp_path: Path) -> None:
    entries = {**{str(n): {"question": n} for n in range(20)}, "data": [1, 2]}
    assert read(tmp_path / "x.json", json.dumps(entries))[0] == list(entries.items())


LIST, LINES = '[{"question": 1}, {"question": 2}]', '{"question": 1}\n{"question": 2}\n'


@pytest.mark.parametrize(("name", "text"), [("x.json", LIST), ("x.json", LINES), ("x.jsonl", LINES)])
def test_lists_and_lines(tmp_path: Path, name: str, text: str) -> None:
    assert read(tmp_path / name, text)[0] == [(None, {"question": 1}), (None, {"question": 2})]


def test_one_record_alone_is_an_entry(tmp_path: Path) -> None:
    assert read(tmp_path / "x.json", '{"question": 1, "data": [2]}')[0] == [(None, {"question": 1, "data": [2]})]


@pytest.mark.parametrize(
    "text", ['{"data": [1, 2', '{"data": [1] "x": 2}', '{"data": [1]} 5', '{"data" [1]}', "{1: 2}"]
)
def test_what_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"x\.json"):
        read(tmp_path / "x.json", text)
