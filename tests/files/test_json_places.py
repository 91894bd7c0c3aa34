"""Every entry of a JSON file is read from where it stands as it is read in order, whatever the file's form."""

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from lavic.errors import UserError
from lavic.files import json_scanner
from lavic.files.json_entries import Entry, read_entries
from lavic.files.json_places import PlacedEntries

VALUES: list[dict[str, Any]] = [
    {"id": "é 😀", "n": [1, -2.5, None]},
    {"id": "half", "t": "x\ud83dy"},
    {"id": "日本" * 40, "nested": {"a": [{}, "]}"]}},
]


def shapes(ascii_only: bool) -> dict[str, str]:
    written = [json.dumps(value, ensure_ascii=ascii_only) for value in VALUES]
    return {
        "list": json.dumps(VALUES, ensure_ascii=ascii_only, indent=1),
        "one line": "[" + " , ".join(written) + "]",
        "lines": "\r\n".join(["", *written[:1], "{broken", " " + written[1] + " ", *written[2:]]),
        "members": json.dumps({str(i): value for i, value in enumerate(VALUES)}, ensure_ascii=ascii_only),
        "one": written[0],
    }


@pytest.mark.parametrize("chunk", [7, 1 << 16])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gzip"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_from_its_place_an_entry_is_as_in_order(
    tmp_path: Path, encoding: str, ascii_only: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_scanner, "CHUNK", chunk)
    for shape, text in shapes(ascii_only).items():
        path = tmp_path / f"{shape}.json{'l' if shape == 'lines' else ''}"
        data = text.encode("utf-8" if encoding == "gzip" else encoding, "surrogatepass")
        path.write_bytes(gzip.compress(data) if encoding == "gzip" else data)
        found = [e for e in read_entries(path, lambda o: "id" in o) if isinstance(e, Entry)]
        assert len(found) == (1 if shape == "one" else 3)
        entries: PlacedEntries = pickle.loads(pickle.dumps(PlacedEntries(path, tmp_path)))
        for entry in reversed(found):
            assert entries.read(*entry.place) == entry.value, shape
    copies = list(tmp_path.glob("text-*"))
    assert len(copies) == (0 if encoding.startswith("utf-8") else 5), "a plain file is read where it lies"


def test_bytes_that_are_no_text_do_not_move_the_places_behind_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\n{"id": "\xff\xe9"}\n{"id": "\xed\xa0\xbd!"}\n{"id": 4}\n')
    found = [e for e in read_entries(path) if isinstance(e, Entry)]
    assert [e.value["id"] for e in found] == [1, "\ufffd!", 4]
    entries = PlacedEntries(path, tmp_path)
    assert [entries.read(*e.place) for e in found] == [e.value for e in found]


def test_a_file_that_changes_while_it_is_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2}\n')
    entries = PlacedEntries(path, tmp_path)
    assert entries.read(0, 9) == {"id": 1}
    with path.open("a") as file:
        file.write('{"id": 3}\n')
    for reader in (entries, pickle.loads(pickle.dumps(entries))):
        with pytest.raises(UserError, match=r"a\.jsonl has changed"):
            reader.read(10, 19)


def test_a_damaged_archive_and_a_full_folder_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b'{"id": 1}\n' * 9000)
    path.write_bytes(whole[:-20])
    with pytest.raises(UserError, match="cut or damaged"):
        PlacedEntries(path, tmp_path)
    assert not list(tmp_path.glob("*.partial"))
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"data\.init_args\.cache_dir"):
        PlacedEntries(path, tmp_path / "absent")
