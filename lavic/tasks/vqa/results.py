"""What a test of VQA leaves: every answer, and all numbers computed from them.

Only answered questions are counted right or wrong; those that ended in an error are counted by themselves. Intervals
draw whole images, since questions about one image belong together.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lavic.evaluation.exact_match import Mode, ceiling, exact_match, majority, normalised, token_f1
from lavic.evaluation.intervals import RESAMPLES, Columns, intervals
from lavic.files import write_text
from lavic.tasks.vqa.prompt import Question

FOLDER, DETAILS = "evaluation_results", "detailed_results.jsonl"
CSV_ROWS = 10_000  # a table for people to look at
WITH, WITHOUT = "with_external_knowledge", "without_external_knowledge"
Control = Literal["no_image", "shuffled_images", "no_description"]
CONTROLS: tuple[Control, ...] = ("no_image", "shuffled_images", "no_description")


@dataclass(frozen=True, slots=True)
class Answered:
    """What the model said to a question.

    Attributes:
        question: what was asked.
        response: the generated text, without spaces at its ends; None after an error.
        inference_time: seconds, its share of its batch.
        controls: the responses without image, with another's, without description; `no_description` only where the
            question was shown one.
        error: why there is no response.
    """

    question: Question
    response: str | None
    inference_time: float
    controls: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None


def write_results(
    folder: Path, answered: Sequence[Answered], config: Mapping[str, Any], mode: Mode = "squad", seed: int = 42
) -> dict[str, Any]:
    """Writes the four files of a test into `folder/evaluation_results`, and returns what is in `metrics.json`.

    - `metrics.json`: all numbers, overall and by whether a question needs outside knowledge;
    - `detailed_results.jsonl`: a line for each question, in the file's order;
    - `results.csv`: the first 10,000 of them;
    - `evaluation_config.json`: what was asked of which model.

    Args:
        folder: the output directory.
        answered: every question once.
        config: of the evaluation.
        mode: the exact match that stands in front; the other stands beside it.
        seed: of the bootstrap.
    """
    folder = folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(answered, key=lambda one: one.question.sample_id)
    rows = [result_row(one) for one in ordered]
    write_text(folder / DETAILS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    names = list(dict.fromkeys(name for row in rows[:CSV_ROWS] for name in row))
    with io.StringIO(newline="") as table:
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[:CSV_ROWS])
        write_text(folder / "results.csv", table.getvalue())
    metrics = metrics_of(ordered, mode, seed)
    whose = {name: config[name] for name in ("adapter", "adapter_sha256") if name in config}
    write_text(folder / "metrics.json", json.dumps({**metrics, **whose}, indent=1))
    write_text(folder / "evaluation_config.json", json.dumps({**config, "mode": mode, "seed": seed}, indent=1))
    return metrics


def metrics_of(answered: Sequence[Answered], mode: Mode = "squad", seed: int = 42) -> dict[str, Any]:
    """All numbers, ready for JSON; a breakdown without questions is absent."""
    said = [one for one in answered if one.response is not None]
    overall = _numbers(said, mode, seed)
    metrics: dict[str, Any] = {"total_samples": len(said), "errors": len(answered) - len(said), **overall}
    for name, needs in ((WITH, True), (WITHOUT, False)):
        group = [one for one in said if one.question.need_external_knowledge == needs]
        if group:
            metrics[name] = {"samples": len(group), **_numbers(group, mode, seed)}
    metrics["bootstrap"] = {"drawn": "images", "resamples": RESAMPLES, "seed": seed, "level": 0.95}
    return metrics


def printed_block(metrics: Mapping[str, Any]) -> list[str]:
    """The numbers as people read them."""
    lines = [
        f"Total Samples:          {metrics['total_samples']}",
        f"Correct Predictions:    {metrics.get('correct_predictions', 0)}",
        f"Incorrect Predictions:  {metrics.get('incorrect_predictions', 0)}",
        f"Errors, not counted:    {metrics['errors']}",
    ]
    for name, title in ((None, "All"), (WITH, "With external knowledge"), (WITHOUT, "Without external knowledge")):
        numbers = metrics if name is None else metrics.get(name)
        if not numbers or "exact_match_score" not in numbers:
            continue
        low, high = numbers["exact_match_interval"]
        count = numbers.get("samples", numbers.get("total_samples"))
        best, share = numbers["majority"]["answer"], numbers["majority"]["exact_match_score"]
        lines += [
            f"{title} ({count} questions)",
            f"  Exact Match Score:      {numbers['exact_match_score']:.4f} [{low:.4f}, {high:.4f}]",
            f"  Exact Match Percentage: {numbers['exact_match_percentage']:.2f}%",
            f"  {numbers['other']['mode']}: {numbers['other']['exact_match_score']:.4f}, "
            f"token F1: {numbers['token_f1']:.4f}, ceiling: {numbers['ceiling']:.4f}, always '{best}': {share:.4f}",
        ]
        for control, values in numbers.get("controls", {}).items():
            low, high = values["exact_match_interval"]
            lines.append(
                f"  {control}: {values['exact_match_score']:.4f} [{low:.4f}, {high:.4f}] on {values['samples']}, "
                f"where the model has {values['own_exact_match_score']:.4f}"
            )
    return lines


def debug_view(answered: Sequence[Answered], count: int = 5) -> list[str]:
    """The first answers with what they are compared as."""
    lines = []
    for one in sorted(answered, key=lambda one: one.question.sample_id)[:count]:
        asked, response = one.question, one.response
        lines.append(f"{asked.sample_id} {asked.image}: {asked.question}")
        if response is None:
            lines.append(f"  error: {one.error}")
            continue
        right = "right" if exact_match(response, asked.answer) else "wrong"
        lines.append(f"  said {response!r} -> {normalised(response)!r}")
        lines.append(f"  answer {asked.answer!r} -> {normalised(asked.answer)!r}: {right}")
    return lines


def _numbers(said: Sequence[Answered], mode: Mode, seed: int) -> dict[str, Any]:
    if not said:
        return {}
    truths = [one.question.answer for one in said]
    other: Mode = "strict" if mode == "squad" else "squad"
    images = [one.question.image for one in said]
    responses = [one.response or "" for one in said]
    ones = np.ones(len(said))
    columns: Columns = {
        **{name: (_matches(responses, truths, name), ones) for name in (mode, other)},
        "token_f1": (np.array([token_f1(r, t) for r, t in zip(responses, truths, strict=True)]), ones),
    }
    found = intervals(columns, images, seed=seed)
    correct = int(columns[mode][0].sum())
    answer, share = majority(truths, mode)
    score = found[mode]
    numbers: dict[str, Any] = {
        "exact_match_score": score.value,
        "exact_match_percentage": 100 * score.value,
        "exact_match_interval": [score.low, score.high],
        "correct_predictions": correct,
        "incorrect_predictions": len(said) - correct,
        "mode": mode,
        "other": {
            "mode": other,
            "exact_match_score": found[other].value,
            "exact_match_interval": [found[other].low, found[other].high],
            "correct_predictions": int(columns[other][0].sum()),
        },
        "token_f1": found["token_f1"].value,
        "token_f1_interval": [found["token_f1"].low, found["token_f1"].high],
        "ceiling": ceiling((((one.question.image, one.question.question), one.question.answer) for one in said), mode),
        "majority": {"answer": answer, "exact_match_score": share},
        "images": len(set(images)),
    }
    controls = {name: _control(said, name, mode, seed) for name in CONTROLS}
    if shown := {name: values for name, values in controls.items() if values}:
        numbers["controls"] = shown
    return numbers


def _control(said: Sequence[Answered], name: str, mode: Mode, seed: int) -> dict[str, Any]:
    """The exact match of a control, and the model's own on the same questions."""
    asked = [one for one in said if name in one.controls]
    if not asked:
        return {}
    truths, ones = [one.question.answer for one in asked], np.ones(len(asked))
    columns = {
        "control": (_matches([one.controls[name] for one in asked], truths, mode), ones),
        "own": (_matches([one.response or "" for one in asked], truths, mode), ones),
    }
    found = intervals(columns, [one.question.image for one in asked], seed=seed)
    return {
        "samples": len(asked),
        "exact_match_score": found["control"].value,
        "exact_match_interval": [found["control"].low, found["control"].high],
        "own_exact_match_score": found["own"].value,
        "own_exact_match_interval": [found["own"].low, found["own"].high],
        "intervals_apart": found["own"].apart_from(found["control"]),
    }


def _matches(responses: Sequence[str], truths: Sequence[str], mode: Mode) -> np.ndarray[Any, np.dtype[np.float64]]:
    pairs = zip(responses, truths, strict=True)
    return np.array([exact_match(response, truth, mode) for response, truth in pairs], dtype=np.float64)


def result_row(one: Answered) -> dict[str, Any]:
    """Returns the line of `detailed_results.jsonl`."""
    asked = one.question
    row: dict[str, Any] = {
        "sample_id": asked.sample_id,
        "image": asked.image,
        "question": asked.question,
        "ground_truth": asked.answer,
        "response": one.response,
        "need_external_knowledge": asked.need_external_knowledge,
        "inference_time": round(one.inference_time, 6),
        **{f"response_{name}": one.controls[name] for name in CONTROLS if name in one.controls},
    }
    return row if one.error is None else {**row, "error": one.error}
