"""The written numbers against an independent script; errors, wrong numbers and odd answers (C1, C3, C5)."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavic.evaluation.exact_match import MODES, Mode
from lavic.tasks.vqa.prompt import Question
from lavic.tasks.vqa.results import Answered, debug_view, metrics_of, printed_block, write_results
from tests.tasks.vqa.comparison import assert_numbers_are_the_scripts

SYSTEMS = Path(__file__).parents[3].parent / "shared" / "systems" / "data"
REAL = pytest.mark.skipif(not SYSTEMS.is_dir(), reason=f"no {SYSTEMS}")


def answered(count: int, seed: int = 0, errors: int = 0) -> list[Answered]:
    rng = random.Random(seed)
    words = ["cat", "The cat.", "dog", "2 men", "7 men", "the", "an assistant to Rubens", "é"]
    found = []
    for i in range(count):
        shown = i % 3 == 0
        truth = rng.choice(words)
        said = truth if rng.random() < 0.4 else rng.choice([*words, ""])
        asked = Question(i, f"{i // 4}.jpg", f"q {i % 2}", truth, shown, "text" if shown else None)
        controls = {"no_image": rng.choice(words), "shuffled_images": rng.choice(words)}
        controls |= {"no_description": rng.choice(words)} if shown else {}
        error = "out of memory" if i < errors else None
        found.append(Answered(asked, None if error else said, 0.1, controls, error))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_metrics_equal_an_independent_script(mode: Mode, tmp_path: Path) -> None:
    several = answered(300, errors=7)
    metrics = write_results(tmp_path, random.Random(1).sample(several, 300), {"model": "m"}, mode)
    assert assert_numbers_are_the_scripts(tmp_path / "evaluation_results") == metrics
    assert metrics["mode"] == mode
    assert (metrics["total_samples"], metrics["errors"]) == (293, 7)
    assert len(metrics["controls"]) == 3


def test_every_question_is_written_once_in_the_files_order(tmp_path: Path) -> None:
    """VizSage kept the last 1,000 of a streamed test."""
    several = answered(1500)
    write_results(tmp_path, several[::-1], {"model": "m"})
    folder = tmp_path / "evaluation_results"
    rows = [json.loads(line) for line in (folder / "detailed_results.jsonl").read_text().splitlines()]
    assert [row["sample_id"] for row in rows] == list(range(1500))
    assert json.loads((folder / "metrics.json").read_text())["total_samples"] == 1500
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [row["response"] for row in csv.DictReader(file)] == [row["response"] for row in rows]
    assert json.loads((folder / "evaluation_config.json").read_text())["model"] == "m"
    assert "error" not in rows[0]
    assert ("response_no_description" in rows[0], "response_no_description" in rows[1]) == (True, False)


def test_c5_wrong_numbers_are_wrong_and_an_error_is_no_answer() -> None:
    truths = ["1623", "2 men", "the", "an assistant to Rubens"]
    asked = [Question(i, "a.jpg", f"q{i}", truth, False) for i, truth in enumerate(truths)]
    wrong = [Answered(q, said, 0) for q, said in zip(asked, ["1999", "7 men", "", "to Rubens"], strict=True)]
    assert metrics_of(wrong)["exact_match_score"] == 0
    right = [Answered(q, q.answer, 0) for q in asked]
    assert metrics_of(right)["exact_match_score"] == 1
    failed = [Answered(asked[2], None, 0, error="image broken"), right[0]]
    metrics = metrics_of(failed)
    assert (metrics["total_samples"], metrics["errors"], metrics["exact_match_score"]) == (1, 1, 1)
    assert "with_external_knowledge" not in metrics
    assert metrics_of([failed[0]])["total_samples"] == 0
    assert any("error: image broken" in line for line in debug_view(failed))


@REAL
@pytest.mark.parametrize("mode", MODES)
def test_c1_six_predictors_on_aqua(mode: Mode) -> None:
    rows = json.loads((SYSTEMS / "aqua" / "val.json").read_text(encoding="utf-8"))
    golden = json.loads((SYSTEMS / "golden" / "aqua_metrics_val.json").read_text())["val"]
    predictors: dict[str, Callable[[dict[str, Any]], str]] = {
        "empty": lambda row: "",
        "person": lambda row: "person",
        "Person.": lambda row: "Person.",
        "upper_gold": lambda row: "The " + str(row["answer"]).upper() + "!",
        "gold": lambda row: str(row["answer"]),
        "last_question_word": lambda row: str(row["question"].split()[-1]),
    }
    asked = [Question(i, **row) for i, row in enumerate(rows)]
    for name, predict in predictors.items():
        metrics = metrics_of([Answered(q, predict(row), 0) for q, row in zip(asked, rows, strict=True)], mode)
        for group in ("all", "with_external_knowledge", "without_external_knowledge"):
            ours, right = metrics if group == "all" else metrics[group], golden[name][f"{mode}/{group}"]
            assert ours["correct_predictions"] == right["correct"], (name, group)
            assert ours["exact_match_score"] == right["exact_match_score"], (name, group)
            assert ours.get("samples", metrics["total_samples"]) == right["samples"]
        assert metrics["ceiling"] == golden["ceiling"][mode]
        assert metrics["without_external_knowledge"]["majority"] == {
            "answer": "person",
            "exact_match_score": 341 / 1507,
        }


def test_controls_are_compared_on_the_questions_that_have_them() -> None:
    several = answered(120)
    metrics = metrics_of(several)
    control = metrics["controls"]["no_description"]
    assert control["samples"] == 40
    shown = [one for one in several if one.question.description]
    own = metrics_of(shown)
    assert control["own_exact_match_score"] == own["exact_match_score"]
    assert control["own_exact_match_interval"] == own["exact_match_interval"]
    assert "no_description" not in metrics["without_external_knowledge"]["controls"]
    block = "\n".join(printed_block(metrics))
    assert "Total Samples:          120" in block
    assert f"Exact Match Score:      {metrics['exact_match_score']:.4f}" in block
    assert "With external knowledge (40 questions)" in block
