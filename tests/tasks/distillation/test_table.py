"""The sample table: what is left out, what is cached, and what makes a cache void."""

import json
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavic.catalogue import image_checks
from lavic.errors import UserError
from lavic.model.processor import load_processor
from lavic.tasks.distillation.table import SampleSource, load_samples
from tests.conftest import Described, write_described


@pytest.fixture(scope="module")
def processor(tiny: Path) -> Any:
    return load_processor(str(tiny))


def source(described: Described, **changes: Any) -> SampleSource:
    fields: dict[str, Any] = {
        "metadata": described.folder / "item2meta_train.json",
        "images_dir": described.folder / "train_images",
        "views": "five",
        "max_length": 2000,
        "max_samples": None,
        "seed": 1,
    }
    return SampleSource(**{**fields, **changes})


def spoil(described: Described) -> dict[str, str]:
    """Breaks four of the training images or texts; returns what must be left out."""
    images = sorted((described.folder / "train_images").iterdir())
    whole = images[0].read_bytes()
    images[0].write_bytes(whole[: len(whole) // 2])
    images[1].write_bytes(b"")
    images[2].unlink()
    path = described.folder / "item2meta_train.json"
    catalogue = json.loads(path.read_text())
    catalogue[images[3].stem.removesuffix("_0")]["image_descriptions_llava_cleaned"] = {images[3].name: ""}
    path.write_text(json.dumps(catalogue))
    reasons = ("image broken", "image empty", "image missing", "no description")
    return {image.name: reason for image, reason in zip(images, reasons, strict=False)}


def test_what_cannot_be_used_is_left_out_with_its_reason(processor: Any, tmp_path: Path) -> None:
    described = write_described(tmp_path, train=10, valid=1)
    expected = spoil(described)
    table, skipped = load_samples(source(described), processor, tmp_path / "cache", strict=False)
    assert {s.where: s.reason for s in skipped} == expected
    assert len(table) == 6
    assert not set(table.column("image")) & set(expected)


def test_strict_makes_the_first_an_error(processor: Any, tmp_path: Path) -> None:
    described = write_described(tmp_path, train=5, valid=1)
    spoil(described)
    with pytest.raises(UserError, match=r"cannot be used \((no description|image \w+)\)"):
        load_samples(source(described), processor, tmp_path / "cache", strict=True)


def test_no_usable_sample_is_an_error(processor: Any, tmp_path: Path) -> None:
    described = write_described(tmp_path, train=2, valid=1)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="No usable sample"):
        load_samples(source(described, images_dir=tmp_path / "none"), processor, tmp_path / "cache", strict=False)


def test_a_table_is_made_once_and_anew_when_a_image_changes(
    processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = write_described(tmp_path, train=6, valid=1)
    decoded: Counter[str] = Counter()
    monkeypatch.setattr(image_checks, "image_size", lambda path: decoded.update([path.name]) or Image.open(path).size)

    def load() -> int:
        decoded.clear()
        return len(load_samples(source(described), processor, tmp_path / "cache", strict=False)[0])

    assert (load(), sum(decoded.values())) == (6, 6)
    assert (load(), sum(decoded.values())) == (6, 0)
    changed = min((described.folder / "train_images").iterdir())
    Image.new("RGB", (9, 9)).save(changed)
    assert (load(), dict(decoded)) == (6, {changed.name: 1}), "only the changed image is decoded again"
    os.utime(described.folder / "item2meta_train.json", (1, 1))
    assert (load(), sum(decoded.values())) == (6, 0)


def test_settings_that_change_samples_change_the_table(processor: Any, described: Described, tmp_path: Path) -> None:
    tables = [
        load_samples(source(described, **changes), processor, tmp_path, strict=False)[0].path
        for changes in ({}, {"max_length": 1999}, {"max_samples": 3}, {"max_samples": 3, "seed": 2})
    ]
    assert len(set(tables)) == 4


def test_max_samples_takes_a_seeded_random_choice(processor: Any, described: Described, tmp_path: Path) -> None:
    def images(**changes: Any) -> list[str]:
        table, _ = load_samples(source(described, **changes), processor, tmp_path, strict=False)
        return table.column("image")

    everything = images()
    chosen = images(max_samples=5)
    assert len(chosen) == 5
    assert set(chosen) < set(everything)
    assert set(chosen) != set(everything[:5])
    assert set(images(max_samples=5, seed=2)) != set(chosen)


def test_rows_lengths_and_pickling(processor: Any, described: Described, tmp_path: Path) -> None:
    table, _ = load_samples(source(described), processor, tmp_path, strict=False)
    lengths, targets = table.lengths(), table.target_lengths()
    for index in range(len(table)):
        row = table.row(index)
        assert len(row["input_ids"]) == lengths[index]
        assert len(row["input_ids"]) - row["target_start"] == targets[index]
        assert row["input_ids"][-1] == processor.tokenizer.eos_token_id
    pickled = pickle.dumps(table)
    assert len(pickled) < 1000, "a worker gets the path, not the rows"
    assert pickle.loads(pickled).row(3)["image"] == table.row(3)["image"]
