"""Invented household products whose look stands in the image and the description, never in the title."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase

PATTERNS = ("plain", "stripes", "dots", "checks", "zigzags", "stars")
FORMS = ("round", "square", "oval", "triangular")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
ACCENTS = ("white", "black", "silver")
BACKGROUNDS = {
    "wood": "a wooden table",
    "grass": "green grass",
    "stone": "grey stone tiles",
    "sand": "pale sand",
    "slate": "dark slate",
}
BRANDS = ("Norwell", "Haldane", "Brightmoor", "Tessera", "Olmstead", "Quillon", "Varley", "Pemberly")
SIZES = ("Small", "Medium", "Large", "Extra Large")

# An ID is "B0", one of these pairs, and an ending that says what it is: B07KSAMPLE.
ID_PIECES = tuple(digit + letter for digit in "123456789" for letter in ascii_uppercase)
ID_START, ID_END = "B0", "SAMPLE"


@dataclass(frozen=True)
class Kind:
    """What the title tells: `name` in the title, `noun` in sentences, and what all products of it share."""

    name: str
    noun: str
    detail: str
    room: str
    feature: str


KINDS = (
    Kind("Area Rug", "rug", "a short fringe along two sides", "living room", "Low Pile"),
    Kind("Throw Cushion", "cushion", "a thin piping around the edge", "bedroom", "Soft Filling"),
    Kind("Serving Tray", "tray", "two sturdy handles for carrying", "kitchen", "Lightweight"),
    Kind("Wall Clock", "clock", "two slim hands in the middle", "hallway", "Silent Movement"),
    Kind("Bath Mat", "mat", "a thick border against slipping", "bathroom", "Quick Drying"),
)


@dataclass(frozen=True)
class Look:
    """What only the image shows. `accent` is the pattern's colour, "" for a plain product."""

    colour: str
    pattern: str
    accent: str
    form: str
    background: str


@dataclass(frozen=True)
class Photograph:
    """One photograph: file name `ASIN_i.jpg`, what it shows, and the sentences that describe it."""

    name: str
    look: Look
    description: str


@dataclass(frozen=True)
class Product:
    """One item of the catalogue; its images differ in the background only."""

    asin: str
    kind: Kind
    title: str
    images: tuple[Photograph, ...]

    @property
    def look(self) -> Look:
        return self.images[0].look


def make_products(per_kind: int, seed: int) -> list[Product]:
    """Makes `per_kind` products of each kind, in which no two of a kind share colour and pattern.

    Every second has a second image, every twentieth an ISBN-like id of ten digits. Raises `ValueError` when
    `per_kind` exceeds the number of colours times patterns.
    """
    rng, words = Random(f"products {seed}"), Random(f"descriptions {seed}")
    pairs = list(itertools.product(COLOURS, PATTERNS))
    products: list[Product] = []
    taken: set[str] = set()
    for kind in KINDS:
        for colour, pattern in rng.sample(pairs, per_kind):
            asin = _new_id(rng, taken, isbn_like=len(products) % 20 == 7)
            title = f"{rng.choice(BRANDS)} {kind.name}, {rng.choice(SIZES)}, {kind.feature}"
            accent = "" if pattern == "plain" else rng.choice(ACCENTS)
            form = rng.choice(FORMS)
            backgrounds = rng.sample(sorted(BACKGROUNDS), 2 if len(products) % 2 == 0 else 1)
            looks = [Look(colour, pattern, accent, form, background) for background in backgrounds]
            images = tuple(
                Photograph(f"{asin}_{index}.jpg", look, describe(kind, look, words)) for index, look in enumerate(looks)
            )
            products.append(Product(asin, kind, title, images))
    return products


def describe(kind: Kind, look: Look, rng: Random) -> str:
    """Four sentences, 20 to 45 words, that name every part of `look` once."""
    colour, form, noun = look.colour, look.form, kind.noun
    opening = rng.choice(
        (
            f"The image shows {_a(form)} {noun} in {colour}.",
            f"This is {_a(colour)} {noun} of {form} shape.",
            f"The {noun} in the picture is {colour} and {form}.",
            f"Seen from above is {_a(form)}, {colour} {noun}.",
        )
    )
    if look.pattern == "plain":
        surface = rng.choice(
            (
                "Its surface is plain, with no print at all.",
                "It is decorated with nothing, just plain.",
                "A plain surface gives it a calm look.",
            )
        )
    else:
        surface = rng.choice(
            (
                f"Its surface is covered with {look.accent} {look.pattern}.",
                f"It is decorated with {look.accent} {look.pattern}.",
                f"A print of {look.accent} {look.pattern} gives it a lively look.",
            )
        )
    place = BACKGROUNDS[look.background]
    setting = rng.choice((f"It lies on {place}.", f"The background is {place}.", f"It was placed on {place}."))
    middle = [surface, setting]
    rng.shuffle(middle)
    ending = rng.choice((f"It has {kind.detail}.", f"It suits a {kind.room}."))
    return " ".join([opening, *middle, ending])


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _new_id(rng: Random, taken: set[str], isbn_like: bool) -> str:
    while True:
        if isbn_like:
            asin = "19" + "".join(rng.choice("0123456789") for _ in range(8))
        else:
            asin = ID_START + rng.choice(ID_PIECES) + ID_END
        if asin not in taken:
            taken.add(asin)
            return asin
