"""The published validation items, where they are at hand: beside the repository, or where LAVIC_REAL_DATA says."""

import json
import logging
import os
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from transformers import AutoProcessor

from lavic.catalogue.descriptions import DescribedImage, read_described_images
from lavic.commands import train as shorthand
from lavic.model.processor import load_processor, placeholder_ids
from lavic.model.text import encode_distillation

ROOT = Path(__file__).parents[3]
REAL = Path(os.environ.get("LAVIC_REAL_DATA", ROOT.parent / "shared" / "lavic_data"))
ITEMS = REAL / "item2meta_valid.jsonl"
pytestmark = pytest.mark.skipif(
    not ITEMS.is_file(), reason=f"the published items are not at {REAL}; set LAVIC_REAL_DATA to their folder"
)


@pytest.fixture(scope="module")
def items() -> list[DescribedImage]:
    return [entry for entry in read_described_images(ITEMS) if isinstance(entry, DescribedImage)]


def test_every_item_is_read(items: list[DescribedImage]) -> None:
    lines = [json.loads(line) for line in ITEMS.read_text(encoding="utf-8").splitlines()]
    assert len(items) == len(lines) == 512
    for item, line in zip(items, lines, strict=True):
        assert item.image == line["image_name"]
        assert item.title == line["title"].strip()
        assert item.description == line["image_description_llava_cleaned"].strip()
        assert line["image_name"].startswith(item.item + "_")


def test_every_target_decodes_to_its_description(items: list[DescribedImage], tiny: Path) -> None:
    processor = load_processor(str(tiny))
    odd = ["Caf\u00c3\u00a9 \u00e2\u0080\u0099s", "\U0001f9fa basket", "\u00a0wide\u3000space", "e\u0301", "\u2028"]
    odd += ["a\tb\r\nc", "\u00e9 first"]
    titles = [item.title for item in items] + odd
    texts = [item.description for item in items] + [text + "x" for text in odd]
    samples = encode_distillation(processor.tokenizer, titles, texts, [5] * len(texts), max_length=4096)
    placeholders = placeholder_ids(processor)
    for sample, text in zip(samples, texts, strict=True):
        assert sample is not None
        assert processor.tokenizer.decode(sample.input_ids[sample.target_start :]) == text + "</s>"
        assert [i for i in sample.input_ids if i in placeholders] == placeholders
        assert max(i for i, token in enumerate(sample.input_ids) if token in placeholders) < sample.target_start


@pytest.mark.slow
def test_trains_to_the_end_by_the_reproductions_flags(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two halves of the file, with drawn images under the names of every tenth item."""
    rng = random.Random(0)
    lines = ITEMS.read_text(encoding="utf-8").splitlines()[::10]
    drawn = {"train": lines[:36], "valid": lines[36:]}
    for split, several in drawn.items():
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}.jsonl").write_text("\n".join(several) + "\n", encoding="utf-8")
        for line in several:
            image = Image.new("RGB", (rng.randint(60, 500), rng.randint(60, 500)), "white")
            box = (10, 10, rng.randint(20, 50), rng.randint(20, 50))
            ImageDraw.Draw(image).rectangle(box, fill=(rng.randrange(256), rng.randrange(256), rng.randrange(256)))
            image.save(tmp_path / split / json.loads(line)["image_name"])
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LAVIC_RUN_ID", "training_20260101_000000")
    root = logging.getLogger()
    before = root.handlers[:]
    flags = {
        "--train_data": tmp_path / "train.jsonl", "--val_data": tmp_path / "valid.jsonl",
        "--train_images_dir": tmp_path / "train", "--val_images_dir": tmp_path / "valid",
        "--output_dir": tmp_path / "out", "--logs_dir": tmp_path / "logs", "--model_name": tiny,
        "--batch_size": 6, "--num_epochs": 2, "--lr": 1e-3, "--max_samples": 24, "--accelerator": "cpu",
        # one character is one token or more to the tiny tokenizer, where the real one needs a word's worth
        "--data.init_args.max_length": 1500, "--data.init_args.num_workers": 0,
        "--model.init_args.max_new_tokens": 8,
    }  # fmt: skip
    try:
        shorthand.main([str(part) for pair in flags.items() for part in pair])
    finally:
        root.handlers[:] = before
    about = json.loads((tmp_path / "logs" / "training_20260101_000000" / "run.json").read_text())
    assert (about["train_samples"], about["val_samples"], about["skipped"]) == (24, len(drawn["valid"]), {})
    assert (tmp_path / "out" / "val_metrics_epoch_2.txt").is_file()
    AutoProcessor.from_pretrained(tmp_path / "out" / "vision_lora_adapter_best")
