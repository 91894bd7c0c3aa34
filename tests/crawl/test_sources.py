"""Metadata files as streams: whatever is malformed is named, and nothing stops the rest."""

import json
import tracemalloc
from pathlib import Path

import pytest

from crawl.sources import Wanted, read_source
from lavic.errors import UserError
from lavic.files.rejected import Rejected


def split(file: Path, **options: bool) -> tuple[list[tuple[str, str]], list[Rejected]]:
    entries = list(read_source(file, **options))
    wanted = [(entry.url, entry.name) for entry in entries if isinstance(entry, Wanted)]
    return wanted, [entry for entry in entries if isinstance(entry, Rejected)]


def test_training_items(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    items = {
        "B1": {"title": "t", "images": [{"large": "http://h/1"}, {"large": " http://h/2\n"}]},
        "0306406152": {"images": [{"large": "http://h/3", "hi_res": None}]},
        "none": {"images": []},
        "null": {"images": None},
        "missing": {"title": "no images"},
        "number": {"images": [{"large": 7}, {"large": "http://h/4"}]},
        "list": ["http://h/5"],
        "flat": {"images": ["http://h/6"]},
        "blank": {"images": [{"large": ""}, {}]},
    }
    file.write_text(json.dumps(items))
    wanted, problems = split(file)
    assert wanted == [
        ("http://h/1", "B1_0.jpg"),
        ("http://h/2", "B1_1.jpg"),
        ("http://h/3", "0306406152_0.jpg"),
        ("http://h/4", "number_1.jpg"),
    ]
    assert [problem.where for problem in problems] == [
        "null", "missing", "number images[0]", "list", "flat images[0]", "blank images[0]", "blank images[1]",
    ]  # fmt: skip


def test_first_image_only_takes_the_first_that_has_a_url(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    images = [{"large": None}, {"large": "http://h/1"}, {"large": "http://h/2"}]
    file.write_text(json.dumps({"B1": {"images": images}}))
    assert split(file, first_image_only=True)[0] == [("http://h/1", "B1_1.jpg")]


def test_a_file_that_is_cut_gives_what_stands_before(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    text = json.dumps({f"B{number}": {"images": [{"large": f"http://h/{number}"}]} for number in range(100)})
    file.write_text(text[: len(text) // 2])
    before: list[object] = []
    with pytest.raises(UserError, match=r"train\.json"):
        before += read_source(file)
    assert 40 <= sum(isinstance(entry, Wanted) for entry in before) == len(before) <= 51


def test_validation_lines(tmp_path: Path) -> None:
    file = tmp_path / "valid.jsonl"
    lines = [
        b'\xef\xbb\xbf{"image": "http://h/1", "image_name": "a.jpg"}',
        b"",
        b"not json",
        b'{"image": 5, "image_name": "b.jpg"}',
        b'{"image": "http://h/2"}',
        b'{"image": "http://h/3", "image_name": ""}',
        b"[1, 2]",
        b'{"image": "http://h/\xff", "image_name": "c.jpg"}',
        b"[" * 100_000,
        b'{"image": "http://h/4", "image_name": "d.jpg"}',
    ]
    file.write_bytes(b"\n".join(lines))
    wanted, problems = split(file)
    assert wanted == [("http://h/1", "a.jpg"), ("http://h/4", "d.jpg")]
    assert [problem.where for problem in problems] == [f"line {number}" for number in range(3, 10)]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    with file.open("w") as stream:
        stream.write("{")
        for number in range(20_000):
            stream.write(f'{"," if number else ""}"B{number}": {{"images": [{{"large": "http://h/{number}"}}],')
            stream.write(f'"title": "{"word " * 100}"}}')
        stream.write("}")
    tracemalloc.start()
    assert sum(isinstance(entry, Wanted) for entry in read_source(file)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < file.stat().st_size / 10
