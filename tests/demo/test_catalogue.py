from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lavic.demo.catalogue import CONVERSATIONS, sample_products, write_images, write_sample
from lavic.demo.drawing import RGB, draw
from lavic.demo.products import BACKGROUNDS, COLOURS, FORMS, PATTERNS, Look, Product

COMMITTED = Path(__file__).parents[2] / "data" / "sample"
TEXTS = ["item2meta_train.json", "item2meta_valid.jsonl", *(f"sample/{split}.jsonl" for split in CONVERSATIONS)]
TEXTS.append("examples.json")


@pytest.fixture(scope="module")
def train() -> list[Product]:
    return sample_products()[0]


@pytest.fixture(scope="module")
def valid() -> list[Product]:
    return sample_products()[1]


def conversations(split: str) -> list[dict[str, list[str]]]:
    return [json.loads(line) for line in (COMMITTED / "sample" / f"{split}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", TEXTS)
def test_committed_text_is_what_the_generator_writes(tmp_path: Path, name: str) -> None:
    write_sample(tmp_path)
    assert (tmp_path / name).read_text() == (COMMITTED / name).read_text()


def test_urls_follow_the_server(tmp_path: Path) -> None:
    write_sample(tmp_path, base_url="http://127.0.0.1:4321/images")
    for name in TEXTS[:2]:
        written = (tmp_path / name).read_text()
        assert (
            written.replace("http://127.0.0.1:4321/images", "http://127.0.0.1:8000/images")
            == (COMMITTED / name).read_text()
        )


def test_examples_are_wishes_that_products_of_the_catalogue_fulfil(train: list[Product]) -> None:
    examples = json.loads((COMMITTED / "examples.json").read_text())
    assert len(set(examples)) == len(examples) == 4
    for example in examples:
        words = set(example.replace(":", "").replace(",", "").split())
        assert any({p.kind.noun, p.look.colour, p.look.pattern} <= words for p in train)


def test_titles_tell_nothing_of_the_look(train: list[Product], valid: list[Product]) -> None:
    telling = {*COLOURS, *PATTERNS, *FORMS, "white", "black", "silver", *BACKGROUNDS}
    for product in [*train, *valid]:
        assert not telling & set(product.title.lower().replace(",", "").split())


def test_descriptions_tell_all_of_the_look_in_20_to_45_words(train: list[Product], valid: list[Product]) -> None:
    for product in [*train, *valid]:
        for image in product.images:
            look = image.look
            for word in (look.colour, look.pattern, look.accent, look.form, BACKGROUNDS[look.background]):
                assert word in image.description
            assert 20 <= len(image.description.split()) <= 45


def test_ids_are_unique_and_some_look_like_isbns(train: list[Product], valid: list[Product]) -> None:
    ids = [product.asin for product in [*train, *valid]]
    assert len(set(ids)) == len(ids) == 200
    assert all(len(asin) == 10 for asin in ids)
    assert sum(asin.isdigit() for asin in ids) == 10


def test_faulty_entries_are_four_of_the_usual_kinds() -> None:
    entries = json.loads((COMMITTED / "item2meta_train.json").read_text(), object_pairs_hook=lambda pairs: pairs)
    keys = Counter(key for key, _ in entries)
    assert len(entries) == 144
    assert [key for key, times in keys.items() if times > 1] == [entries[2][0]]
    assert [key for key in keys if ".." in key] == ["../B003SAMPLE"]
    metadata = [dict(entry) for _, entry in entries]
    assert sum(entry["images"] is None for entry in metadata) == 1
    assert sum(not entry["image_descriptions_llava_cleaned"] for entry in metadata) == 1


@pytest.mark.parametrize("split", list(CONVERSATIONS))
def test_candidates_are_ten_of_one_kind(split: str, train: list[Product], valid: list[Product]) -> None:
    shelf = {product.asin: product for product in (train if split == "train" else valid)}
    for conversation in conversations(split):
        for key in ("candidates_st", "candidates_gpt_large"):
            candidates = conversation[key]
            assert len(set(candidates)) == 10
            assert len({shelf[asin].kind.name for asin in [*candidates, *conversation["gt_items"]]}) == 1


def test_the_truth_is_mostly_a_candidate_and_nothing_else_fits_the_wish(valid: list[Product]) -> None:
    shelf = {product.asin: product for product in valid}
    found = 0
    for conversation in conversations("test"):
        right = conversation["gt_items"]
        looks = [(shelf[asin].look.colour, shelf[asin].look.pattern) for asin in right]
        present = set(right) & set(conversation["candidates_st"])
        found += bool(present)
        for asin in set(conversation["candidates_st"]) - set(right):
            look = shelf[asin].look
            assert (look.colour, look.pattern) not in looks
            if len(right) > 1:
                assert look.colour not in {colour for colour, _ in looks}
    assert 180 <= found < 200


@pytest.mark.parametrize("colour", COLOURS)
def test_a_image_shows_its_colour(colour: str) -> None:
    drawn = draw(Look(colour, "plain", "", "square", "slate"), "rug", "any_0.jpg", (400, 400))
    assert drawn.getpixel((200, 200)) == RGB[colour]


@pytest.mark.parametrize("field", ["colour", "pattern", "accent", "form", "background"])
def test_each_part_of_the_look_changes_the_image(field: str) -> None:
    one = {"colour": "red", "pattern": "dots", "accent": "white", "form": "oval", "background": "sand"}
    other = {"colour": "blue", "pattern": "stars", "accent": "black", "form": "round", "background": "wood"}
    first = draw(Look(**one), "rug", "any_0.jpg")
    second = draw(Look(**(one | {field: other[field]})), "rug", "any_0.jpg")
    assert first.size == second.size
    assert first.tobytes() != second.tobytes()


@pytest.mark.slow
def test_images_are_the_same_each_time(tmp_path: Path) -> None:
    for run in ("one", "two"):
        write_images(tmp_path / run)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 270
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)
