"""One reader of item2meta for every stage: the same items whatever the shape, and a word where there are none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crawl.sources import Wanted, read_source
from lavic.catalogue.descriptions import DescribedImage, read_described_images
from lavic.catalogue.item2meta import ID_FIELDS, ImageRecord, ItemRecord, read_item2meta
from lavic.catalogue.items import read_items
from lavic.errors import UserError


def meta(item: str) -> dict[str, Any]:
    return {
        "title": f"Title of {item}",
        "images": [{"large": f"http://h/{item}"}],
        "image_descriptions_llava_cleaned": {f"{item}_0.jpg": f"It shows {item}."},
    }


ITEMS = ["B1", "my_item", "0306406152"]
IMAGES = [
    {
        "title": f"Title of {item}", "image_name": f"{item}_0.jpg", "image": f"http://h/{item}",
        "image_description_llava_cleaned": f"It shows {item}.",
    }
    for item in ITEMS
]  # fmt: skip
SHAPES: dict[str, str] = {
    "published object": json.dumps({item: meta(item) for item in ITEMS}),
    "published lines": "\n".join(map(json.dumps, IMAGES)),
    "list of images": json.dumps(IMAGES, indent=2),
    **{f"list with {f}": json.dumps([{f: item} | meta(item) for item in ITEMS]) for f in ID_FIELDS},
    **{f"lines with {f}": "\n".join(json.dumps(meta(item) | {f: item}) for item in ITEMS) for f in ID_FIELDS},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m.txt"])
def test_every_stage_finds_the_same_items_in_every_shape(tmp_path: Path, shape: str, name: str) -> None:
    path = tmp_path / name
    path.write_text(SHAPES[shape])
    assert {item.id: item.title for item in read_items([path]).values()} == {i: f"Title of {i}" for i in ITEMS}
    assert list(read_described_images(path)) == [
        DescribedImage(i, f"Title of {i}", f"{i}_0.jpg", f"It shows {i}.") for i in ITEMS
    ]
    wanted = [entry for entry in read_source(path) if isinstance(entry, Wanted)]
    assert [(entry.url, entry.name) for entry in wanted] == [(f"http://h/{i}", f"{i}_0.jpg") for i in ITEMS]


def test_one_item_and_one_image_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"asin": "B1"} | meta("B1")))
    [item] = read_item2meta(path)
    assert isinstance(item, ItemRecord)
    assert item.item == "B1"
    path.write_text(json.dumps(IMAGES[0], indent=1))
    [image] = read_item2meta(path)
    assert isinstance(image, ImageRecord)
    path.write_text(json.dumps({"B1": meta("B1")}))
    [item] = read_item2meta(path)
    assert isinstance(item, ItemRecord)


def test_numbers_can_be_ids(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"id": 17, "title": "t"}, {"id": True, "title": "t"}]))
    assert list(read_items([path])) == ["17"]


STAGES: dict[str, Callable[[Path], Any]] = {
    "items": lambda path: read_items([path]),
    "descriptions": lambda path: list(read_described_images(path)),
}
NOTHING = {
    "": "is empty",
    "[]": "is empty",
    "{}": "is empty",
    '{"items": [{"title": "x"}]}': "'items' is a list",
    '{"B1": "Red towel"}': "'B1' is text",
    '[{"title": "x", "price": 3}]': "a list of entries without an ID .*of title, price",
    '["B1", "B2"]': "a list of entries without an ID .*entry 1 is text",
    '{"title": "x"}\n{"title": "y"}': "JSON lines of entries without an ID",
}


@pytest.mark.parametrize("content", NOTHING)
def test_a_file_without_an_item_says_what_it_holds_and_what_is_needed(tmp_path: Path, content: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(content)
    for read in STAGES.values():
        with pytest.raises(UserError, match=rf"{NOTHING[content]}.*needed is an object of items") as error:
            read(path)
        assert str(path) in str(error.value)
    with pytest.raises(UserError, match="needed is an object of items"):
        list(read_source(path))


def test_items_without_an_image_are_no_source_to_crawl(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"B1": {"title": "t", "images": []}}))
    with pytest.raises(UserError, match="No image is named"):
        list(read_source(path))


def test_the_first_of_two_equal_items_counts_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for text in (
        f'{{"B1": {json.dumps(meta("B1"))}, "B1": {json.dumps(meta("B1") | {"title": "second"})}}}',
        json.dumps([{"asin": "B1"} | meta("B1"), {"asin": "B1"} | meta("B1") | {"title": "second"}]),
    ):
        path.write_text(text)
        assert read_items([path])["B1"].title == "Title of B1"
        first, second = read_described_images(path)
        assert isinstance(first, DescribedImage)
        assert (second.where, second.reason) == ("B1", "duplicate key")  # type: ignore[union-attr]
