"""Micro-batches as tensors, and the pairing of the shuffled control."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lavic.batching.controls import partners_of
from lavic.batching.padding import IGNORED
from lavic.batching.step_plan import MicroBatch
from lavic.catalogue.images import open_image
from lavic.errors import UserError
from lavic.model.processor import load_processor
from lavic.model.views import cut_views
from lavic.tasks.distillation.batches import DescribedImages
from lavic.tasks.distillation.table import load_samples
from tests.conftest import Described, write_described
from tests.tasks.distillation.test_table import source


@pytest.fixture(scope="module")
def processor(tiny: Path) -> Any:
    return load_processor(str(tiny))


def data_set(described: Described, processor: Any, cache: Path, partners: Any = None) -> DescribedImages:
    table, _ = load_samples(source(described), processor, cache, strict=False)
    return DescribedImages(table, described.folder / "train_images", processor, partners)


def test_a_micro_batch_is_padded_on_the_right_and_supervises_targets(
    processor: Any, described: Described, tmp_path: Path
) -> None:
    data = data_set(described, processor, tmp_path)
    batch = data[MicroBatch((3, 0, 7), step_targets=99)]
    assert batch["step_targets"] == 99
    assert batch["views"].shape == (15, 3, 336, 336)
    for row, index in enumerate((3, 0, 7)):
        sample = data.table.row(index)
        ids, start = sample["input_ids"].tolist(), sample["target_start"]
        assert batch["input_ids"][row, : len(ids)].tolist() == ids
        assert batch["attention_mask"][row].sum() == len(ids)
        assert batch["attention_mask"][row, : len(ids)].all()
        expected = [IGNORED] * start + ids[start:] + [IGNORED] * (batch["labels"].shape[1] - len(ids))
        assert batch["labels"][row].tolist() == expected
        image = open_image(described.folder / "train_images" / sample["image"])
        assert torch.equal(batch["views"][5 * row : 5 * row + 5], cut_views(processor.image_processor, image))


def test_a_ghost_supervises_nothing(processor: Any, described: Described, tmp_path: Path) -> None:
    batch = data_set(described, processor, tmp_path)[MicroBatch((1,), step_targets=5, ghost=True)]
    assert (batch["labels"] == IGNORED).all()
    assert batch["step_targets"] == 5


def test_prompts_end_where_the_target_begins_and_are_padded_on_the_left(
    processor: Any, described: Described, tmp_path: Path
) -> None:
    data = data_set(described, processor, tmp_path)
    prompts = data.prompts([0, 5])
    for row, index in enumerate((0, 5)):
        ids = data.table.row(index)["input_ids"][: data.table.row(index)["target_start"]].tolist()
        assert prompts["input_ids"][row, -len(ids) :].tolist() == ids
        assert prompts["attention_mask"][row].sum() == len(ids)


def test_partners_are_other_items_images(processor: Any, described: Described, tmp_path: Path) -> None:
    table, _ = load_samples(source(described), processor, tmp_path, strict=False)
    partners = partners_of(table.column("item"), seed=1)
    data = data_set(described, processor, tmp_path, partners)
    batch = data[MicroBatch((2,), step_targets=1)]
    assert torch.equal(batch["partner_views"], data.views(data.table.row(partners[2])))


@pytest.mark.parametrize("items", [list("abcdefg"), list("aabbccdd"), list("aaabcd"), list("ab")])
def test_a_partner_has_another_item_and_serves_once(items: list[str]) -> None:
    for seed in range(20):
        partners = partners_of(items, seed)
        assert sorted(partners) == list(range(len(items)))
        assert all(items[i] != items[partner] for i, partner in enumerate(partners))
    assert len({tuple(partners_of(list("abcdefghij"), seed)) for seed in range(9)}) > 1


def test_a_image_that_vanishes_during_a_run_is_an_error_that_names_it(processor: Any, tmp_path: Path) -> None:
    described = write_described(tmp_path, train=4, valid=1)
    data = data_set(described, processor, tmp_path / "cache")
    gone = described.folder / "train_images" / data.table.row(2)["image"]
    gone.unlink()
    with pytest.raises(UserError, match=gone.name):
        data[MicroBatch((2,), step_targets=1)]
