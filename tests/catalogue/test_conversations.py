"""Conversation files: what is left out, what becomes a sample, and that nothing is changed (fault 9)."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lavic.catalogue.conversations import Conversation, read_category_split, read_conversations, training_samples
from lavic.errors import UserError
from lavic.files.rejected import Rejected

GOOD = {"context": "Hi", "gt_items": ["A", "A", "Z"], "candidates_st": ["A", "B", "C"], "gt": "kept"}


def write(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_lines_that_cannot_be_used_are_listed_with_their_reason(tmp_path: Path) -> None:
    broken = [
        "{not json",
        [],
        GOOD | {"context": " "},
        {"context": "Hi", "gt_items": ["A"], "candidates_gpt_large": ["A"]},
        GOOD | {"candidates_st": []},
        GOOD | {"candidates_st": ["A", 3]},
        GOOD | {"candidates_st": ["A", "B", "A"]},
        GOOD | {"gt_items": "A"},
    ]
    path = write(tmp_path / "valid.jsonl", [*broken, "", GOOD, {k: GOOD[k] for k in ("context", "candidates_st")}])
    entries = list(read_conversations(path, "candidates_st", "home"))
    assert [entry.reason for entry in entries if isinstance(entry, Rejected)] == [
        "not valid JSON: Expecting property name enclosed in double quotes",
        "not an object",
        "no context",
        "no candidates_st (it has candidates_gpt_large)",
        "candidates_st is not a list of IDs",
        "candidates_st is not a list of IDs",
        "candidates_st repeats an ID",
        "gt_items is not a list of IDs",
    ]
    usable = [entry for entry in entries if isinstance(entry, Conversation)]
    assert [entry.line for entry in usable] == [10, 11]
    assert usable[0].gt_items == ("A", "A", "Z")
    assert usable[1].gt_items == ()
    assert usable[0].record == GOOD


def test_several_categories_are_read_together(tmp_path: Path) -> None:
    for category, count in (("home", 2), ("beauty", 3)):
        write(tmp_path / category / "test.jsonl", [GOOD] * count)
    conversations, faults = read_category_split(tmp_path, ["beauty", "home"], "test", "candidates_st")
    assert [c.category for c in conversations] == ["beauty"] * 3 + ["home"] * 2
    assert not faults
    with pytest.raises(UserError, match=r"no conversation file .*garden.*beauty, home"):
        read_category_split(tmp_path, ["garden"], "test", "candidates_st")
    with pytest.raises(UserError, match=r"line 1: no candidates_my \(it has candidates_st\)"):
        read_category_split(tmp_path, ["home"], "test", "candidates_my")


def test_one_sample_for_each_distinct_ground_truth(tmp_path: Path) -> None:
    conversation = Conversation("home", 1, "Hi", ("A", "B", "C"), ("A", "A", "Z"), {})
    samples = training_samples([conversation], inject=True, seed=1)
    assert [sample.target for sample in samples] == ["A", "Z"]
    assert samples[0].candidates == ("A", "B", "C")
    assert sum(a != b for a, b in zip(samples[1].candidates, "ABC", strict=True)) == 1
    assert "Z" in samples[1].candidates
    left = training_samples([conversation], inject=False, seed=1)
    assert [sample.target for sample in left] == ["A"]


def test_fault_9_injection_leaves_the_data_set_as_it_is() -> None:
    record = {"context": "Hi", "gt_items": ["Z"], "candidates_st": ["A", "B", "C"]}
    conversations = [Conversation("home", i, "Hi", ("A", "B", "C"), ("Z",), record) for i in range(60)]
    before = copy.deepcopy(conversations)
    first = training_samples(conversations, inject=True, seed=1)
    assert conversations == before
    assert training_samples(conversations, inject=True, seed=1) == first
    assert training_samples(conversations[30:], inject=True, seed=1) == first[30:]
    assert training_samples(conversations, inject=True, seed=2) != first
    places = [sample.candidates.index("Z") for sample in first]
    assert min(places.count(i) for i in range(3)) > 10
