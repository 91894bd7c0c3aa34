"""What a test of stage 2 leaves: every conversation's answers, and all numbers computed from them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavic.catalogue.conversations import Conversation
from lavic.evaluation.ranking import Prediction, by_score, report
from lavic.files import write_text

SCORED = "scored"
GENERATED, CONSTRAINED, FIRST = "generated", "constrained", "first_candidate"
COLUMNS = ("hit_ratio@1", "recall@1_micro", "valid_ratio", "hit_ratio@3", "hit_ratio@5", "mrr")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one conversation.

    Attributes:
        response: the freely generated text.
        recommended: the item that the text names, None if it names none.
        constrained: the item decoded among the candidates.
        scores: log-likelihood in nats of every candidate, under `scored` and the controls' names.
    """

    response: str
    recommended: str | None
    constrained: str
    scores: Mapping[str, Sequence[float]]


def ways_of(conversations: Sequence[Conversation], answers: Sequence[Answer]) -> dict[str, list[Prediction]]:
    """The predictions of each way to choose: three ways to ask the model, its controls, and the first candidate."""
    pairs = list(zip(conversations, answers, strict=True))
    ways = {
        GENERATED: [Prediction(c.candidates, c.gt_items, a.recommended) for c, a in pairs],
        CONSTRAINED: [Prediction(c.candidates, c.gt_items, a.constrained) for c, a in pairs],
        FIRST: [Prediction(c.candidates, c.gt_items, c.candidates[0]) for c in conversations],
    }
    for name in answers[0].scores if answers else ():
        ways[name] = [by_score(c.candidates, c.gt_items, a.scores[name]) for c, a in pairs]
    return ways


def write_results(
    folder: Path,
    candidates: str,
    conversations: Sequence[Conversation],
    answers: Sequence[Answer],
    run: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Writes the three files of a test into `folder`, and returns what is in `metrics.json`.

    - `test_results_<candidates>.jsonl`: the conversations' own lines with the published `recommended_<name>` and
      `response_<name>`, and beside them `constrained_<name>`, `scores_<name>` and each control's
      `scores_<control>_<name>`;
    - `metrics.json`: all numbers, for all conversations and by category;
    - `results_summary.csv`: a line for each way, added to those of earlier tests.

    Args:
        folder: the output directory.
        candidates: the candidates' field, such as `candidates_st`.
        conversations: those that were tested.
        answers: one for each.
        run: what identifies the run in both tables (model, adapters).
        seed: of the bootstrap.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = candidates.removeprefix("candidates_")
    lines = []
    for conversation, answer in zip(conversations, answers, strict=True):
        said = {
            "category": conversation.category,
            f"recommended_{name}": answer.recommended,
            f"response_{name}": answer.response,
            f"constrained_{name}": answer.constrained,
        }
        scores = {
            f"scores_{name}" if way == SCORED else f"scores_{way}_{name}": list(values)
            for way, values in answer.scores.items()
        }
        lines.append(json.dumps({**conversation.record, **said, **scores}, ensure_ascii=False) + "\n")
    write_text(folder / f"test_results_{candidates}.jsonl", "".join(lines))

    groups = {"all": list(range(len(conversations)))}
    categories = sorted({conversation.category for conversation in conversations})
    if len(categories) > 1:
        groups |= {
            category: [i for i, c in enumerate(conversations) if c.category == category] for category in categories
        }
    reports = {
        group: report(ways_of([conversations[i] for i in rows], [answers[i] for i in rows]), seed)
        for group, rows in groups.items()
    }
    metrics = {**run, "candidates": candidates, "categories": categories, "groups": reports}
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False))
    _append_summary(folder / "results_summary.csv", {**run, "candidates": candidates}, reports)
    return metrics


def summary_lines(reports: Mapping[str, Any]) -> list[str]:
    """The main numbers as text, a line for each way of each group."""
    lines = []
    for group, entries in reports.items():
        overall = entries["overall"]
        ceiling = overall["ceilings"].get("hit_ratio@1", 0.0)
        lines.append(f"{group}: {overall['conversations']} conversations, HitRatio@1 at most {ceiling:.4f}")
        for way, metrics in overall["ways"].items():
            values = (f"{key} {m['value']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" for key, m in metrics.items())
            lines.append(f"  {way:<16} {'  '.join(values)}")
    return lines


def _append_summary(path: Path, run: Mapping[str, Any], reports: Mapping[str, Any]) -> None:
    intervals = [f"{column}{end}" for column in COLUMNS for end in ("", "_low", "_high")]
    header = [*run, "group", "entries", "way", "conversations", "ceiling_hit_ratio@1", *intervals]
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header)
        if is_new:
            writer.writeheader()
        for group, by_entries in reports.items():
            for entries, content in by_entries.items():
                for way, metrics in content["ways"].items():
                    row = {**run, "group": group, "entries": entries, "way": way}
                    row["conversations"] = content["conversations"]
                    row["ceiling_hit_ratio@1"] = content["ceilings"].get("hit_ratio@1")
                    for column, interval in metrics.items():
                        row[column] = interval["value"]
                        row |= {f"{column}_low": interval["low"], f"{column}_high": interval["high"]}
                    writer.writerow(row)
