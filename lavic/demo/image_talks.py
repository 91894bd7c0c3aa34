"""Captions of drawn images and conversations about them, in the forms that LLaVA's two stages read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from lavic.batching.controls import partners_of
from lavic.demo.products import describe
from lavic.demo.questions import Shown, drawn, split_images, visual_questions
from lavic.files import write_text

SEEN = 1400  # images to train on: by CLIP all of them, by LLaVA the first
IMAGES = {"train": 400, "val": 40, "test": 100}
TEXTS = {"train": 80, "val": 8}  # conversations without an image
TURNS = 3  # questions of a conversation
ASKED = (1, 3)  # which of them a held-out image is asked about, having heard the answers before

Pair = tuple[str, str]  # a question and its answer
Record = dict[str, Any]


def images() -> dict[str, list[Shown]]:
    """The images of each split; those to train on are `SEEN`, of which LLaVA trains on as many as `IMAGES` says."""
    return split_images(counts={**IMAGES, "train": SEEN})


def caption(shown: Shown, rng: Random) -> str:
    """An image in words."""
    product, image = shown
    return describe(product.kind, image.look, rng)


def talk(shown: Shown, rng: Random) -> list[Pair]:
    """Questions about an image, with their answers."""
    product, image = shown
    asked = rng.sample(visual_questions(product.kind, image.look), TURNS)
    return [(f"{question[0].upper()}{question[1:]}?", answer) for question, answer in asked]


def write_talks(folder: Path) -> dict[str, list[Shown]]:
    """Writes images, captions, conversations, and questions about held-out images; returns what `images` gives.

    `Images/`, `captions.json` and `captions_val.json` are for the first stage; `train.json` and `val.json` for the
    second, with conversations about no image among them; `questions.json` for `predict`, and `shuffled.json` asks the
    same of other images.

    Args:
        folder: receives them.
    """
    (folder / "Images").mkdir(parents=True, exist_ok=True)
    rng = Random("talks")
    splits = images()
    for split, some in splits.items():
        shown = some[: IMAGES[split]]
        for one in shown:
            drawn(*one).save(folder / "Images" / one[1].name, quality=90)
        if split == "test":
            asked = [record for one in shown for record in _questions(one, rng)]
            others = partners_of([record["image"] for record in asked], seed=0)
            shuffled = [{**record, "image": asked[other]["image"]} for record, other in zip(asked, others, strict=True)]
            _write(folder / "questions.json", asked)
            _write(folder / "shuffled.json", shuffled)
            continue
        ending = "" if split == "train" else f"_{split}"
        _write(folder / f"captions{ending}.json", [_captioned(one, rng) for one in shown])
        talks = [_record(one[1].name, talk(one, rng), one[1].name) for one in shown]
        talks += [_read(f"text_{number}", rng.choice(shown), rng) for number in range(TEXTS[split])]
        rng.shuffle(talks)
        _write(folder / f"{split}.json", talks)
    return splits


def _captioned(shown: Shown, rng: Random) -> Record:
    return _record(shown[1].name, [("Describe the image.", caption(shown, rng))], shown[1].name)


def _read(name: str, shown: Shown, rng: Random) -> Record:
    """A conversation about a text instead of an image."""
    (question, answer), *later = talk(shown, rng)
    return _record(name, [(f"{caption(shown, rng)} {question}", answer), *later])


def _questions(shown: Shown, rng: Random) -> list[Record]:
    pairs = talk(shown, rng)
    return [_record(f"{shown[1].name} {turn}", pairs[:turn], shown[1].name) for turn in ASKED]


def _record(name: str, pairs: Sequence[Pair], image: str | None = None) -> Record:
    turns = [(speaker, said) for pair in pairs for speaker, said in zip(("human", "gpt"), pair, strict=True)]
    shown = {} if image is None else {"image": image}
    if image is not None:
        turns[0] = ("human", f"<image>\n{turns[0][1]}")
    return {"id": name, **shown, "conversations": [{"from": speaker, "value": said} for speaker, said in turns]}


def _write(path: Path, records: Sequence[Record]) -> None:
    write_text(path, json.dumps(records, indent=1))
