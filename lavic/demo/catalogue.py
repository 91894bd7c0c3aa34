"""Writes the sample catalogue: metadata and conversations in the published form, and the images."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from lavic.demo.conversations import make_conversations, wish
from lavic.demo.drawing import draw
from lavic.demo.products import Product, make_products
from lavic.files import write_text

PER_KIND = 40
TRAIN_PER_KIND = 28
CONVERSATIONS = {"train": 600, "valid": 60, "test": 200}
EXAMPLES = 4  # wishes to start with on the shop's page
BASE_URL = "http://127.0.0.1:8000/images"


def sample_products(seed: int = 0) -> tuple[list[Product], list[Product]]:
    """The catalogue's 140 training and 60 validation items; both hold every kind, none holds the other's."""
    train: list[Product] = []
    valid: list[Product] = []
    for index, product in enumerate(make_products(PER_KIND, seed)):
        (train if index % PER_KIND < TRAIN_PER_KIND else valid).append(product)
    return train, valid


def write_sample(folder: Path, base_url: str = BASE_URL, seed: int = 0) -> None:
    """Writes the metadata of both splits and the conversations of the domain `sample` under `folder`.

    The training metadata holds, besides the 140 items, a few faulty entries such as real metadata holds: no
    description, no images, a repeated item and a name that leaves the images' folder.

    Args:
        folder: receives `item2meta_train.json`, `item2meta_valid.jsonl`, `sample/{train,valid,test}.jsonl`, and
            `examples.json`, wishes that `python -m lavic web` offers.
        base_url: where the images will be served; `{base_url}/ASIN_i.jpg`.
        seed: of everything that is invented.
    """
    train, valid = sample_products(seed)
    folder.mkdir(parents=True, exist_ok=True)
    entries = [(product.asin, _train_entry(product, base_url)) for product in train]
    entries += _faulty_entries(train, base_url)
    lines = (f"{json.dumps(asin)}: {json.dumps(entry)}" for asin, entry in entries)
    # Not json.dumps of a dict, which cannot repeat an item.
    write_text(folder / "item2meta_train.json", "{\n" + ",\n".join(lines) + "\n}\n")
    _write_lines(
        folder / "item2meta_valid.jsonl",
        (
            {
                "title": product.title,
                "image_name": image.name,
                "image": f"{base_url}/{image.name}",
                "image_description_llava_cleaned": image.description,
            }
            for product in valid
            for image in product.images[:1]
        ),
    )
    (folder / "sample").mkdir(exist_ok=True)
    for split, count in CONVERSATIONS.items():
        # Held-out items alone outside training: an ID seen in training could be remembered without a look.
        shelf = train if split == "train" else valid
        conversations = make_conversations(shelf, count, seed=f"{seed} {split}")
        _write_lines(folder / "sample" / f"{split}.jsonl", conversations)
    write_text(folder / "examples.json", json.dumps(_examples(train, seed), indent=1) + "\n")


def write_images(folder: Path, seed: int = 0) -> None:
    """Draws every image that `write_sample` names, as `folder/ASIN_i.jpg`; about ten milliseconds each."""
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = sample_products(seed)
    shown = [(product, image) for product in train for image in product.images]
    shown += [(product, product.images[0]) for product in valid]
    for product, image in shown:
        draw(image.look, product.kind.noun, image.name).save(folder / image.name, quality=90)


def _train_entry(product: Product, base_url: str) -> dict[str, object]:
    return {
        "title": product.title,
        "images": [{"large": f"{base_url}/{image.name}"} for image in product.images],
        "image_descriptions_llava_cleaned": {image.name: image.description for image in product.images},
    }


def _examples(products: list[Product], seed: int) -> list[str]:
    """Wishes for some of the products, each of another kind."""
    rng = Random(f"examples {seed}")
    one_of_each = {product.kind.name: product for product in rng.sample(products, len(products))}
    wanted = list(one_of_each.values())[:EXAMPLES]
    return [f"A {product.kind.noun} for my {product.kind.room}: {wish(product.look, False, rng)}" for product in wanted]


def _faulty_entries(train: list[Product], base_url: str) -> list[tuple[str, dict[str, object]]]:
    first, second, third, fourth = (_train_entry(product, base_url) for product in train[:4])
    outside = {"../B003SAMPLE_0.jpg": train[3].images[0].description}
    return [
        ("B001SAMPLE", first | {"image_descriptions_llava_cleaned": {}}),
        ("B002SAMPLE", second | {"images": None}),
        (train[2].asin, third),
        ("../B003SAMPLE", fourth | {"image_descriptions_llava_cleaned": outside}),
    ]


def _write_lines(path: Path, records: Iterable[object]) -> None:
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
