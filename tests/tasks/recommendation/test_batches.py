"""Stage 2's batches: what is supervised, and what each control shows."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavic.batching.step_plan import MicroBatch
from lavic.catalogue.conversations import Conversation, Sample
from lavic.catalogue.items import Item
from lavic.model.text import PLACEHOLDERS
from lavic.tasks.recommendation.batches import (
    NO_IMAGES,
    OWN,
    SHUFFLED,
    ChoiceEncoder,
    EvaluationChoices,
    TrainingChoices,
)
from lavic.tasks.recommendation.item_store import ItemStore, build_item_store
from tests.toy_tokenizer import toy_tokenizer

TOKENIZER = toy_tokenizer()
PLACES = TOKENIZER.convert_tokens_to_ids(list(PLACEHOLDERS))
VIEWS = {"A": 5, "B": 3, "C": 0, "D": 5, "5555454546": 4}
CONVERSATION = Conversation("home", 1, "Something red?", ("A", "B", "C", "5555454546"), ("B",), {})
SAMPLES = [Sample(CONVERSATION, CONVERSATION.candidates, "B"), Sample(CONVERSATION, ("D", "C"), "D")]


@pytest.fixture
def encoder(tmp_path: Path) -> ChoiceEncoder:
    """Every CLS token holds its item's number and its view's."""
    items = []
    for number, (name, views) in enumerate(VIEWS.items()):
        path = tmp_path / f"{name}_0.jpg"
        path.write_bytes(bytes([number, views]))
        items.append(Item(name, f"Title {name}", path if views else None))

    def cut(path: Path) -> Tensor:
        number, views = path.read_bytes()
        return torch.tensor([[number, view] for view in range(views)], dtype=torch.uint8)

    build_item_store(tmp_path / "store", {}, items, cut, lambda views: views.float(), width=2)
    titles = {item.id: item.title for item in items}
    return ChoiceEncoder(TOKENIZER, titles, ItemStore.open(tmp_path / "store", {}, items), 2048, seed=1)


def count_places(input_ids: Tensor) -> int:
    return int(torch.isin(input_ids, torch.tensor(PLACES)).sum())


def test_the_id_and_eos_are_supervised_and_nothing_else(encoder: ChoiceEncoder) -> None:
    batch = TrainingChoices(SAMPLES, encoder)[MicroBatch((0, 1), step_targets=9)]
    for row, sample in enumerate(SAMPLES):
        supervised = batch["labels"][row] != -100
        assert TOKENIZER.decode(batch["labels"][row][supervised]) == f"{sample.target}</s>"
        assert torch.equal(batch["input_ids"][row][supervised], batch["labels"][row][supervised])
        assert batch["attention_mask"][row][supervised].all()
    assert batch["cls_tokens"][:, 0].tolist() == [0] * 5 + [1] * 3 + [4] * 4 + [3] * 5
    assert len(batch["cls_tokens"]) == count_places(batch["input_ids"])
    assert batch["step_targets"] == 9
    ghost = TrainingChoices(SAMPLES, encoder)[MicroBatch((0,), step_targets=9, ghost=True)]
    assert (ghost["labels"] == -100).all()


def test_each_control_shows_what_it_says(encoder: ChoiceEncoder) -> None:
    batch = EvaluationChoices(SAMPLES, encoder, controls=True)[MicroBatch((0, 1), step_targets=0)]
    own, shuffled, bare = batch[OWN], batch[SHUFFLED], batch[NO_IMAGES]
    assert torch.equal(own["input_ids"], shuffled["input_ids"])
    assert len(own["cls_tokens"]) == len(shuffled["cls_tokens"]) == count_places(own["input_ids"]) == 17
    assert not (own["cls_tokens"][:, 0] == shuffled["cls_tokens"][:, 0]).any()
    assert len(bare["cls_tokens"]) == count_places(bare["input_ids"]) == 0
    assert "A: Title A\nB: Title B\n" in TOKENIZER.decode(bare["input_ids"][0])
    assert batch["targets"] == (1, 0)
    texts = [TOKENIZER.decode(answer) for answer in own["answers"][0]]
    assert texts == ["A</s>", "B</s>", "C</s>", "5555454546</s>"]


def test_conversations_have_no_target_and_ghosts_no_rows(encoder: ChoiceEncoder) -> None:
    choices = EvaluationChoices([CONVERSATION], encoder, controls=False)
    batch = choices[MicroBatch((0,), step_targets=0)]
    assert set(batch) == {OWN, "rows", "targets"}
    assert (batch["rows"], batch["targets"]) == ((0,), ())
    assert choices[MicroBatch((0,), step_targets=0, ghost=True)]["rows"] == ()
