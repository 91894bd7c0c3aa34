"""A small set of instruction records: with one image, with two, with several turns, and text alone."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = ("red", "blue", "green", "yellow", "black", "white")


@dataclass(frozen=True)
class InstructionFiles:
    """`train.json`, `val.json` and `images/` in a folder."""

    folder: Path

    def options(self) -> list[str]:
        """The data module's options that name them, and a template of the tiny model's tokens."""
        option = "--data.init_args."
        return [
            f"{option}train_data={self.folder / 'train.json'}", f"{option}val_data={self.folder / 'val.json'}",
            f"{option}images_dir={self.folder / 'images'}", f"{option}template=mistral",
            f"{option}cache_dir={self.folder / 'cache'}",
        ]  # fmt: skip


def write_instruction_files(folder: Path, seen: int, text: int, val: int = 3) -> InstructionFiles:
    """`seen` records with images and `text` without to train on; `val` of each to validate with."""
    (folder / "images").mkdir(parents=True)
    rng = random.Random(3)
    for split, with_images, without in (("train", seen, text), ("val", val, val)):
        records = [_seen(folder, f"{split}{number}", number, rng) for number in range(with_images)]
        records += [_text(f"{split}t{number}", number, rng) for number in range(without)]
        (folder / f"{split}.json").write_text(json.dumps(records))
    return InstructionFiles(folder)


def _seen(folder: Path, name: str, number: int, rng: random.Random) -> dict[str, Any]:
    names = []
    for place in range(1 + (number == 1)):
        image = Image.new("RGB", (rng.choice([120, 200, 480]), rng.choice([100, 300])), rng.choice(COLOURS))
        ImageDraw.Draw(image).ellipse((10, 10, 20 + number, 60), fill="grey")
        names.append(f"{name}_{place}.png")
        image.save(folder / "images" / names[-1])
    turns = [("human", "<image>" * len(names) + "What does it show?"), ("gpt", f"A {rng.choice(COLOURS)} towel.")]
    for _ in range(number % 3):
        turns += [("human", "Is it large?"), ("gpt", rng.choice(["Yes.", "No, it is a small towel on a table."]))]
    return {"id": name, "image": names, "conversations": [{"from": who, "value": said} for who, said in turns]}


def _text(name: str, number: int, rng: random.Random) -> dict[str, Any]:
    turns = [("human", "Which colour is next? " * (number + 1)), ("gpt", f"It is {rng.choice(COLOURS)}.")]
    return {"id": name, "conversations": [{"from": who, "value": said} for who, said in turns]}
