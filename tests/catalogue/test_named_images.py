"""What the metadata no longer names is no longer the catalogue's, though its file is still in the folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavic.catalogue.descriptions import WITHDRAWN, DescribedImage, read_described_images
from lavic.catalogue.item2meta import ImageRecord, ItemRecord
from lavic.catalogue.items import read_items
from lavic.catalogue.named_images import images_of
from lavic.files.rejected import Rejected

URLS = [{"large": "http://h/0"}, {"large": "http://h/1"}]
TEXTS = {"A_0.jpg": "Red.", "A_1.jpg": "Blue."}


@pytest.mark.parametrize(
    ("meta", "named"),
    [
        ({"images": URLS}, ["A_0.jpg", "A_1.jpg"]),
        ({"images": URLS[:1], "image_descriptions_llava_cleaned": TEXTS}, ["A_0.jpg"]),
        ({"images": [], "image_descriptions_llava_cleaned": TEXTS}, []),
        ({"images": [{"thumb": "http://h/0"}, None, URLS[1]]}, ["A_2.jpg"]),
        ({"image_descriptions_llava_cleaned": TEXTS}, ["A_0.jpg", "A_1.jpg"]),
        ({"images": None, "image_descriptions_llava_cleaned": TEXTS}, ["A_0.jpg", "A_1.jpg"]),
        ({"image_descriptions_llava_cleaned": {"../A_0.jpg": "x"}}, []),
        ({"image_descriptions_llava_cleaned": {}}, None),
        ({"title": "Only that"}, None),
        (None, None),
    ],
)
def test_an_item_names_its_images(meta: Any, named: list[str] | None) -> None:
    assert images_of(ItemRecord("item A", "A", meta)) == named


def test_a_record_of_one_image_names_it() -> None:
    assert images_of(ImageRecord("line 1", "A", "A_4.jpg", {"image_name": "A_4.jpg"})) == ["A_4.jpg"]
    assert images_of(ImageRecord("line 1", "A", "../A_4.jpg", {})) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("A_0.jpg", "A_1.jpg", "A_4.jpg", "B_0.png"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def first_image(folder: Path, *files: Any) -> dict[str, str | None]:
    """Each file is an object of items, or a list of lines."""
    paths = []
    for number, content in enumerate(files):
        paths.append(folder / f"items{number}.json")
        paths[-1].write_text(json.dumps(content))
    return {one.id: one.image.name if one.image else None for one in read_items(paths, [folder]).values()}


def test_an_items_image_is_one_that_the_metadata_names(folder: Path) -> None:
    assert first_image(folder, {"A": {"images": URLS}}) == {"A": "A_0.jpg"}
    assert first_image(folder, {"A": {"images": []}}) == {"A": None}
    assert first_image(folder, {"A": {"images": [{"large": ""}, URLS[1]]}}) == {"A": "A_1.jpg"}
    assert first_image(folder, {"A": {"image_descriptions_llava_cleaned": {"A_1.jpg": "x"}}}) == {"A": "A_1.jpg"}
    assert first_image(folder, [{"title": "t", "image_name": "A_4.jpg"}]) == {"A": "A_4.jpg"}
    assert first_image(folder, {"A": {"images": URLS[:0]}}, [{"image_name": "A_4.jpg"}]) == {"A": "A_4.jpg"}
    assert first_image(folder, {"B": {"images": URLS[:1]}}) == {"B": "B_0.png"}, "put there by hand"
    assert first_image(folder, {"A": {"title": "says nothing of images"}}) == {"A": "A_0.jpg"}


def test_a_withdrawn_image_is_no_sample_and_is_listed(folder: Path) -> None:
    items = {"A": {"title": "Mug", "images": URLS[:1], "image_descriptions_llava_cleaned": TEXTS}}
    (folder / "items.json").write_text(json.dumps(items))
    used, left_out = read_described_images(folder / "items.json")
    assert isinstance(used, DescribedImage)
    assert used.image == "A_0.jpg"
    assert left_out == Rejected("A_1.jpg", WITHDRAWN)
