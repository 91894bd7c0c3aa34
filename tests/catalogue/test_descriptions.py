"""Metadata files in both published forms, and what is left out of them and why."""

import json
from pathlib import Path

import pytest

from lavic.catalogue.descriptions import (
    DescribedImage,
    escapes_folder,
    read_described_images,
)
from lavic.catalogue.item2meta import item_of_image
from lavic.errors import UserError
from lavic.files.rejected import Rejected


def read(path: Path) -> tuple[list[DescribedImage], dict[str, str]]:
    entries = list(read_described_images(path))
    used = [entry for entry in entries if isinstance(entry, DescribedImage)]
    return used, {entry.where: entry.reason for entry in entries if isinstance(entry, Rejected)}


def test_json_gives_one_sample_a_described_image(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text(
        json.dumps(
            {
                "B000000001": {
                    "title": "Towel",
                    "images": None,
                    "image_descriptions_llava_cleaned": {"B000000001_0.jpg": "Red.", "B000000001_3.jpg": " Blue. "},
                },
                "1477436804": {"title": "Book", "image_descriptions_llava_cleaned": {"1477436804_0.jpg": "Green."}},
            }
        )
    )
    used, skipped = read(path)
    assert used == [
        DescribedImage("B000000001", "Towel", "B000000001_0.jpg", "Red."),
        DescribedImage("B000000001", "Towel", "B000000001_3.jpg", "Blue."),
        DescribedImage("1477436804", "Book", "1477436804_0.jpg", "Green."),
    ]
    assert skipped == {}


def test_json_entries_that_cannot_be_used_are_named_with_their_reason(tmp_path: Path) -> None:
    text = {"a.jpg": "Red."}
    path = tmp_path / "meta.json"
    path.write_text(
        '{"OK": {"title": "T", "image_descriptions_llava_cleaned": {"ok.jpg": "x"}}, '
        '"OK": {"title": "again", "image_descriptions_llava_cleaned": {"again.jpg": "x"}}, '
        + json.dumps(
            {
                "NUMBER": 3,
                "NONE": {"title": "T", "image_descriptions_llava_cleaned": None},
                "MISSING": {"title": "T"},
                "EMPTY": {"title": "T", "image_descriptions_llava_cleaned": {"e.jpg": "  "}},
                "TITLE": {"title": "", "image_descriptions_llava_cleaned": {"t.jpg": "Red."}},
                "UP": {"title": "T", "image_descriptions_llava_cleaned": {"../up.jpg": "Red."}},
                "ONE": {"title": "T", "image_descriptions_llava_cleaned": text},
                "TWO": {"title": "T", "image_descriptions_llava_cleaned": text},
            }
        )[1:]
    )
    used, skipped = read(path)
    assert [sample.image for sample in used] == ["ok.jpg", "a.jpg"]
    assert used[0].title == "T", "of two equal keys the first stays"
    assert skipped == {
        "OK": "duplicate key",
        "NUMBER": "not an object",
        "NONE": "no description",
        "MISSING": "no description",
        "e.jpg": "no description",
        "t.jpg": "no title",
        "../up.jpg": "image name leaves the folder",
        "a.jpg": "duplicate image",
    }


def test_jsonl_gives_one_sample_a_line(tmp_path: Path) -> None:
    good = {"title": "Towel", "image_name": "0486406482_4.jpg", "image_description_llava_cleaned": "Red."}
    lines = [good, 7, {**good, "image_name": None}, {**good, "image_name": "x.jpg", "title": 5}]
    path = tmp_path / "meta.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    used, skipped = read(path)
    assert used == [DescribedImage("0486406482", "Towel", "0486406482_4.jpg", "Red.")]
    assert skipped == {"line 2": "not an object", "line 3": "no image name", "line 4": "no title"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'{"A": {}\n,\n', "line 3"),
        ("a.jsonl", b'{"title": "x"}\n{"title": \n', "line 2"),
        ("a.jsonl", b'{"title": "\xff"}\n', "line 1"),
        ("a.json", b"[]", "list"),
        ("a.csv", b"", ".csv"),
    ],
)
def test_a_broken_file_is_an_error_that_says_where(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        list(read_described_images(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/a.jpg", "a/../../b.jpg", "..\\a.jpg", "C:\\a.jpg", "C:a.jpg", "a\0.jpg"]
)
def test_names_that_leave_the_folder(name: str) -> None:
    assert escapes_folder(name)


@pytest.mark.parametrize("name", ["B08LYS9WYD_4.jpg", "folder/a.jpg", "a..b.jpg"])
def test_names_that_stay_in_it(name: str) -> None:
    assert not escapes_folder(name)


def test_the_item_is_what_stands_before_the_images_number() -> None:
    names = ("B08LYS9WYD_4.jpg", "a_b_0.jpg", "plain.jpg")
    assert [item_of_image(name) for name in names] == ["B08LYS9WYD", "a_b", "plain"]
