"""Items of both metadata forms, and their first images."""

import json
from pathlib import Path

import pytest

from lavic.catalogue.items import read_items
from lavic.errors import UserError


def test_items_have_a_title_and_their_first_image(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("A_10.jpg", "A_2.jpg", "B_0.txt", "my_item_0.jpg"):
        (images / name).write_bytes(b"")
    json_file = tmp_path / "items.json"
    json_file.write_text(json.dumps({"A": {"title": " Lamp "}, "B": {"images": []}, "C": None}))
    jsonl_file = tmp_path / "items.jsonl"
    lines = [
        {"title": "Other", "image_name": "A_10.jpg"},
        {"title": "Mug", "image_name": "my_item_0.jpg"},
        {},
    ]
    jsonl_file.write_text("\n".join(map(json.dumps, lines)))
    items = read_items([json_file, jsonl_file], [images])
    assert {i.id: i.title for i in items.values()} == {
        "A": "Lamp",
        "B": "No Title",
        "C": "No Title",
        "my_item": "Mug",
    }
    assert {i.id: i.image and i.image.name for i in items.values()} == {
        "A": "A_2.jpg",
        "B": None,
        "C": None,
        "my_item": "my_item_0.jpg",
    }


def test_wrong_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "items.jsonl"
    broken.write_text('{"title": "a", "image_name": "A_0.jpg"}\n{')
    with pytest.raises(UserError, match=r"items\.jsonl .*line 2"):
        read_items([broken])
    with pytest.raises(UserError, match=r"nowhere\.json does not exist"):
        read_items([tmp_path / "nowhere.json"])
    listed = tmp_path / "list.json"
    listed.write_text("[]")
    with pytest.raises(UserError, match=r"is empty; needed is .*a list"):
        read_items([listed])
    with pytest.raises(UserError, match="images folder"):
        read_items([listed], [tmp_path / "no_images"])
