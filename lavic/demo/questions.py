"""Questions about drawn images, in AQUA's form: most are answered by a look, some only by a table.

Who made a product and in which size it is sold stands nowhere in the image; the table's text says it, as SemArt's texts
say who painted what.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from lavic.demo.drawing import draw
from lavic.demo.products import BACKGROUNDS, BRANDS, Kind, Look, Photograph, Product, make_products
from lavic.files import write_text

IMAGES = {"train": 400, "val": 20, "test": 100}
SIZES = ("small", "medium", "large", "huge")
DRAWN, SAVED = (336, 336), (168, 168)  # width and height in pixels
INSTRUCTION = "Answer in a few words."

Shown = tuple[Product, Photograph]


def visual_questions(kind: Kind, look: Look) -> list[tuple[str, str]]:
    """What a look answers, and the answer."""
    return [
        (f"which colour is the {kind.noun}", look.colour),
        (f"what pattern does the {kind.noun} have", look.pattern),
        (f"which form does the {kind.noun} have", look.form),
        (f"where does the {kind.noun} lie", f"on {BACKGROUNDS[look.background]}"),
    ]


def known(kind: Kind, rng: Random) -> tuple[list[tuple[str, str]], str]:
    """What only the table answers, and its text."""
    maker, size = rng.choice(BRANDS), rng.choice(SIZES)
    told = f"This {kind.noun} was made by {maker}. It is sold in the size {size} and suits a {kind.room}."
    return [(f"who made the {kind.noun}", maker), (f"in which size is the {kind.noun} sold", size)], told


def write_questions(folder: Path, seed: int = 0) -> None:
    """Writes `train.json`, `val.json`, `test.json`, `Images/` and `knowledge.csv` into `folder`.

    Every look is of one split alone, as far as the image shows it.

    Args:
        folder: receives them.
        seed: of everything that is invented.
    """
    (folder / "Images").mkdir(parents=True, exist_ok=True)
    with io.StringIO(newline="") as table:
        writer = csv.writer(table, delimiter="\t", lineterminator="\n")
        writer.writerow(["IMAGE_FILE", "DESCRIPTION"])  # as SemArt writes them
        rng = Random(f"questions {seed}")
        for split, shown in split_images(seed).items():
            entries = []
            for product, image in shown:
                drawn(product, image).save(folder / "Images" / image.name, quality=90)
                asked, told = known(product.kind, rng)
                writer.writerow([image.name, told])
                visual = rng.sample(visual_questions(product.kind, image.look), 3)
                entries += [_entry(image, *pair, needs=False) for pair in visual]
                entries.append(_entry(image, *rng.choice(asked), needs=True))
            rng.shuffle(entries)
            write_text(folder / f"{split}.json", json.dumps(entries, indent=1))
        write_text(folder / "knowledge.csv", table.getvalue())


def drawn(product: Product, image: Photograph) -> Image.Image:
    """The image, small."""
    return draw(image.look, product.kind.noun, image.name, DRAWN).resize(SAVED)


def split_images(seed: int = 0, counts: Mapping[str, int] | None = None) -> dict[str, list[Shown]]:
    """The images of each split, of products with no look in common between test and the others.

    Args:
        seed: of the products.
        counts: images of each split; null is `IMAGES`.
    """
    counts = counts or IMAGES
    chosen: dict[str, list[Shown]] = {}
    taken: set[tuple[Kind, Look]] = set()
    for number, split in enumerate(("test", "val", "train")):
        images = (one for one in _images(1_000 * (3 * seed + number + 100)) if _look(one) not in taken)
        chosen[split] = [next(images) for _ in range(counts[split])]
        taken |= {_look(one) for one in chosen[split]}
    return chosen


def _images(seed: int) -> Iterator[Shown]:
    """Products of different worlds may have one ID: an image's name says its world too."""
    while True:
        products = make_products(30, seed)
        Random(seed).shuffle(products)
        for product in products:
            image = product.images[0]
            yield product, Photograph(f"{seed}_{image.name}", image.look, image.description)
        seed += 1


def _look(shown: Shown) -> tuple[Kind, Look]:
    product, image = shown
    return product.kind, image.look


def _entry(image: Photograph, question: str, answer: str, needs: bool) -> dict[str, Any]:
    return {"image": image.name, "question": question, "answer": answer, "need_external_knowledge": needs}


def words(shown: Sequence[Shown]) -> list[str]:
    """Texts that hold every word of questions, answers and the table."""
    rng = Random(0)
    texts = [INSTRUCTION]
    for product, image in shown:
        asked, told = known(product.kind, rng)
        texts += [told, *(f"{question} {answer}" for question, answer in visual_questions(product.kind, image.look))]
        texts += [f"{question} {answer}" for question, answer in asked]
    return texts
