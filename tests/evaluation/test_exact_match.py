"""Exact match against the golden files: SQuAD's vectors (C2), and six predictors on AQUA's validation split (C1)."""

import json
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavic.evaluation.exact_match import MODES, ceiling, exact_match, majority, normalised, token_f1

DATA = Path(__file__).parents[2].parent / "shared" / "systems" / "data"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}")


def load(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


VECTORS = [
    ("The sky is blue!", "sky is blue"),
    ("U.S.A", "usa"),
    ("the-cat", "thecat"),
    ("l'a", "la"),
    ("“The End”", "“ end”"),
    ("café！", "café！"),
    ("a.b", "ab"),
    ("an's palette", "ans palette"),
    ("Ａ cat", "ａ cat"),
    ("3.5", "35"),
    ("A", ""),
    ("", ""),
    ("THE\tOther  one\n", "other one"),
    ("theatre anthem a-b", "theatre anthem ab"),
]


@pytest.mark.parametrize(("text", "right"), VECTORS)
def test_c2_normalisation(text: str, right: str) -> None:
    assert normalised(text) == right


@REAL
def test_c2_the_golden_vectors() -> None:
    for vector in load("golden/normalisation.json"):
        assert normalised(vector["text"]) == vector["squad"], vector


@REAL
def test_c1_six_predictors_on_aqua_give_the_golden_counts() -> None:
    rows, golden = load("aqua/val.json"), load("golden/aqua_metrics_val.json")["val"]
    predictors: dict[str, Callable[[dict[str, str]], str]] = {
        "empty": lambda row: "",
        "person": lambda row: "person",
        "Person.": lambda row: "Person.",
        "upper_gold": lambda row: "The " + row["answer"].upper() + "!",
        "gold": lambda row: row["answer"],
        "last_question_word": lambda row: row["question"].split()[-1],
    }
    groups = {
        "all": rows,
        "with_external_knowledge": [row for row in rows if row["need_external_knowledge"]],
        "without_external_knowledge": [row for row in rows if not row["need_external_knowledge"]],
    }
    for name, predict in predictors.items():
        for mode in MODES:
            for group, members in groups.items():
                right = golden[name][f"{mode}/{group}"]
                correct = sum(exact_match(predict(row), row["answer"], mode) for row in members)
                assert (len(members), correct) == (right["samples"], right["correct"]), (name, mode, group)
    for mode in MODES:
        asked = [((row["image"], row["question"]), row["answer"]) for row in rows]
        assert ceiling(asked, mode) == golden["ceiling"][mode]
    visual = groups["without_external_knowledge"]
    assert majority(row["answer"] for row in visual) == ("person", 341 / 1507)


def test_an_empty_prediction_is_not_the() -> None:
    assert not exact_match("", "the")
    assert exact_match("the", "the")
    assert not exact_match("an", "the")
    assert (token_f1("the", "the"), token_f1("an", "the")) == (1, 0)
    assert (exact_match("The end.", "end"), exact_match("The end.", "end", "strict")) == (True, False)
    assert not any(exact_match(*pair) for pair in (("2 men", "7 men"), ("1999", "1623")))


def test_f1_equals_the_official_one() -> None:
    def official(prediction: str, truth: str) -> float:
        def words(text: str) -> list[str]:
            bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
            return re.sub(r"\b(a|an|the)\b", " ", bare).split()

        common = Counter(words(prediction)) & Counter(words(truth))
        same = sum(common.values())
        if not same:
            return 0.0
        precision, recall = same / len(words(prediction)), same / len(words(truth))
        return 2 * precision * recall / (precision + recall)

    rng = random.Random(0)
    for _ in range(300):
        said, truth = (" ".join(rng.choices(["The", "a", "cat,", "dog", "red", "Red!"], k=4)) for _ in range(2))
        if normalised(said) and normalised(truth):
            assert token_f1(said, truth) == pytest.approx(official(said, truth))


def test_the_ceiling_is_what_the_best_fixed_answers_reach() -> None:
    asked = [("q", "A cat."), ("q", "cat"), ("q", "dog"), ("r", "the"), ("r", "a")]
    assert ceiling(asked, "squad") == 3 / 5
    assert ceiling(asked, "strict") == 2 / 5
    assert majority(["The Cat", "cat", "dog"]) == ("The Cat", 2 / 3)
    assert majority(["The Cat", "dog", "dog", "cat"], "strict") == ("dog", 1 / 2)
