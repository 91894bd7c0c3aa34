"""JSON of every shape under every name: the same entries, the line of what is wrong, and constant memory."""

import gzip
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from lavic.errors import UserError
from lavic.files import json_scanner
from lavic.files.json_entries import Entry, read_entries, read_json
from lavic.files.rejected import Rejected

RECORDS: list[dict[str, Any]] = [{"id": "A", "n": [1, 2.5, -3e5, True, None]}, {"id": "B", "text": 'é "q" \\ 😀'}]
ITEMS = {record["id"]: record for record in RECORDS}


def values(path: Path) -> list[Any]:
    return [entry.value for entry in read_entries(path, lambda o: "id" in o) if isinstance(entry, Entry)]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.json.gz", "a.txt", "a"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_shape_counts_and_not_the_name(tmp_path: Path, name: str, indent: int | None, encoding: str) -> None:
    path = tmp_path / name
    shapes = {
        "list": json.dumps(RECORDS, indent=indent),
        "object": json.dumps(ITEMS, indent=indent, ensure_ascii=False),
        "lines": "\r\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS) + "\r\n\r\n",
    }
    for shape, text in shapes.items():
        data = text.encode(encoding)
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        assert values(path) == RECORDS, shape
    path.write_bytes(json.dumps(RECORDS[0], indent=indent).encode(encoding))
    assert values(path) == RECORDS[:1], "one object that is a record"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 64])
def test_values_that_a_window_cuts_are_read_whole(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_scanner, "CHUNK", chunk)
    numbers = [123456, -1.5e-10, True, False, None]
    whole = {"kéy": [*numbers, "😀 \\u00e9 \t"], "z": {"y": 12}, "": "", "n": 7}
    path = tmp_path / "a.json"
    for ascii_only in (False, True):
        path.write_text(json.dumps(whole, ensure_ascii=ascii_only), encoding="utf-8")
        entries = read_entries(path, lambda _: False)
        assert {entry.where: entry.value for entry in entries if isinstance(entry, Entry)} == whole
    path.write_text("[1, 23, 456 , 7890]")
    assert values(path) == [1, 23, 456, 7890]


def test_bare_nan_and_infinity(tmp_path: Path) -> None:
    record = '{"id": "x", "p": NaN, "q": [Infinity, -Infinity]}'
    for text in (f'{{"A": {record}}}', record, f"[{record}]"):
        (tmp_path / "a.json").write_text(text)
        [value] = values(tmp_path / "a.json")
        assert math.isnan(value["p"])
        assert value["q"] == [math.inf, -math.inf]


def test_half_an_emoji_and_repeated_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "x \\ud83d", "\\udc9d": ["\\uD83D\\uDE00"], "t": 1, "t": 2}\n{"id": "\xed\xa0\xbd"}\n')
    first, second = read_entries(path)
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert first.value == {"id": "x \ufffd", "\ufffd": ["😀"], "t": 1}
    assert first.repeated == ("t",)
    assert second.value == {"id": "\ufffd"}


def test_a_bad_line_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": \n{"id": "caf\xe9"}\n[1]\n{"id": "x"} y\n' + b"[" * 100_000 + b'\n{"id": "last"}')
    entries = list(read_entries(path))
    assert [e.where for e in entries if isinstance(e, Rejected)] == ["line 1", "line 2", "line 4", "line 5"]
    assert [e.value for e in entries if isinstance(e, Entry)] == [[1], {"id": "last"}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"A": {},\n "B": {\n', "line 3"),
        (b'[{"id": 1},\n\n {"id": 2} {"id": 3}]', "line 3"),
        (b'{"A": {}}\n\n}', None),
        (b'{"A": {"t": "x"},\n"B": {"t": "caf\xe9"}}', "Line 2 of"),
        (b"id,title\n1,2\n", "line 1"),
        (b"<html>", "line 1"),
        (b'{"A": 1}{"B": 2}', "line 1"),
        (b'{\n"A": 1\n}\n{\n"B": 2\n}', "several JSON values"),
        (gzip.compress(b'{"A": {}}' * 99, mtime=0)[:-9], "gzip"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, data: bytes, said: str | None) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    if said is None:
        assert any(isinstance(entry, Rejected) and entry.where == "line 3" for entry in read_entries(path))
        return
    with pytest.raises(UserError, match=said) as error:
        list(read_entries(path, lambda _: False))
    assert str(path) in str(error.value)


def test_lines_behind_a_long_file_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    lines = [f'"B{i}": {{"text": "{"word " * 50}"}},' for i in range(5000)]
    path.write_text("{\n" + "\n".join(lines) + '\n"last": {]}}')
    with pytest.raises(UserError, match="line 5002 "):
        list(read_entries(path))


@pytest.mark.parametrize("shape", ["object", "list", "lines"])
def test_memory_holds_an_entry_at_a_time(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "a.json"
    entries = (f'{{"id": "B{i}", "text": "{"word " * 100}"}}' for i in range(20_000))
    with path.open("w") as stream:
        if shape == "object":
            stream.write("{" + ",".join(f'"B{i}": {entry}' for i, entry in enumerate(entries)) + "}")
        else:
            stream.write("[" + ",".join(entries) + "]" if shape == "list" else "\n".join(entries))
    tracemalloc.start()
    count = sum(isinstance(entry, Entry) for entry in read_entries(path, lambda _: False))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < path.stat().st_size / 8


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(ITEMS).encode("utf-16"))
    assert read_json(path) == ITEMS
    path.write_text('{"A": 1} x')
    with pytest.raises(UserError, match="more follows"):
        read_json(path)
