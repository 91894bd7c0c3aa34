"""What a test of stage 2 leaves: every conversation's answers, and all numbers computed from them.

A candidate's score under `scored` is the log-likelihood of its whole ID with EOS: the sum over its tokens, which is
what training lowers and what constrained decoding follows, and whose exponential is the probability that the model
answers so. Where IDs have different numbers of tokens, each further token can only lower that sum, so that short IDs
gain; the mean over an ID's tokens (`scored_per_token`) has no such slope, but is no probability, and favours IDs that
share long beginnings. `scored` is the default: it is the method's own, and published IDs have ten letters each.
How much the number of tokens tells of the score is printed for both.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lavic.catalogue.conversations import Conversation
from lavic.evaluation.ranking import Prediction, by_score, report, thread_of
from lavic.files import write_text

SCORED, PER_TOKEN = "scored", "scored_per_token"
GENERATED, CONSTRAINED, FIRST = "generated", "constrained", "first_candidate"
COLUMNS = ("hit_ratio@1", "recall@1_micro", "valid_ratio", "hit_ratio@3", "hit_ratio@5", "mrr", "ndcg")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one conversation.

    Attributes:
        response: the freely generated text.
        recommended: the item that the text names, None if it names none.
        constrained: the item decoded among the candidates.
        scores: log-likelihood in nats of every candidate, under `scored` and the controls' names.
        tokens: how many tokens of every candidate's ID, EOS among them, a score sums over; may be empty.
    """

    response: str
    recommended: str | None
    constrained: str
    scores: Mapping[str, Sequence[float]]
    tokens: Sequence[int] = ()


def ways_of(conversations: Sequence[Conversation], answers: Sequence[Answer]) -> dict[str, list[Prediction]]:
    """The predictions of each way to choose: four ways to ask the model, its controls, and the first candidate."""
    triples = [(c, a, thread_of(c.context)) for c, a in zip(conversations, answers, strict=True)]

    def naming(items: Iterable[str | None]) -> list[Prediction]:
        named = zip(triples, items, strict=True)
        return [Prediction(c.candidates, c.gt_items, item, thread=thread) for (c, _, thread), item in named]

    def scoring(several: Iterable[Sequence[float]]) -> list[Prediction]:
        scored = zip(triples, several, strict=True)
        return [by_score(c.candidates, c.gt_items, scores, thread) for (c, _, thread), scores in scored]

    ways = {
        GENERATED: naming(a.recommended for a in answers),
        CONSTRAINED: naming(a.constrained for a in answers),
        FIRST: naming(c.candidates[0] for c in conversations),
    }
    for name in answers[0].scores if answers else ():
        ways[name] = scoring(a.scores[name] for a in answers)
    if SCORED in ways and all(a.tokens for a in answers):
        ways[PER_TOKEN] = scoring(per_token(a) for a in answers)
    return ways


def per_token(answer: Answer) -> list[float]:
    """Each candidate's mean log-likelihood over the tokens of its ID."""
    return [score / tokens for score, tokens in zip(answer.scores[SCORED], answer.tokens, strict=True)]


def length_correlation(answers: Sequence[Answer]) -> dict[str, float | None]:
    """Pearson's correlation, within conversations, of an ID's number of tokens and its score.

    Both are taken relative to their conversation's mean. None where the IDs of every conversation have as many tokens.
    """
    whole = [a for a in answers if a.tokens and np.isfinite(a.scores.get(SCORED, [math.nan])).all()]
    if not whole:
        return {}
    tokens = np.concatenate([np.asarray(a.tokens) - np.mean(a.tokens) for a in whole])
    found: dict[str, float | None] = {}
    ways: dict[str, list[Sequence[float]]] = {
        SCORED: [a.scores[SCORED] for a in whole],
        PER_TOKEN: [per_token(a) for a in whole],
    }
    for way, scores in ways.items():
        values = np.concatenate([np.asarray(several) - np.mean(several) for several in scores])
        norm = math.sqrt(float(tokens @ tokens) * float(values @ values))
        found[way] = float(tokens @ values) / norm if norm else None
    return found


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
      `response_<name>`, and beside them `constrained_<name>`, `scores_<name>`, `tokens_<name>` (of each candidate's
      ID) and each control's `scores_<control>_<name>`;
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
    pairs = zip(conversations, answers, strict=True)
    lines = [json.dumps(result_row(candidates, *pair), ensure_ascii=False) + "\n" for pair in pairs]
    write_text(folder / results_file(candidates), "".join(lines))

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
    for group, rows in groups.items():
        reports[group]["overall"]["length_correlation"] = length_correlation([answers[i] for i in rows])
    metrics = {**run, "candidates": candidates, "categories": categories, "groups": reports}
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False))
    _append_summary(folder / "results_summary.csv", {**run, "candidates": candidates}, reports)
    return metrics


def results_file(candidates: str) -> Path:
    """Returns the name of a test's rows in the output directory."""
    return Path(f"test_results_{candidates}.jsonl")


def result_row(candidates: str, conversation: Conversation, answer: Answer) -> dict[str, Any]:
    """Returns a conversation's own line with what was answered; `write_results` names the fields."""
    name = candidates.removeprefix("candidates_")
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
    counts = {f"tokens_{name}": list(answer.tokens)} if answer.tokens else {}
    return {**conversation.record, **said, **scores, **counts}


def summary_lines(reports: Mapping[str, Any]) -> list[str]:
    """The main numbers as text, a line for each way of each group."""
    lines = []
    for group, entries in reports.items():
        overall = entries["overall"]
        ceiling = overall["ceilings"].get("hit_ratio@1", 0.0)
        lines.append(
            f"{group}: {overall['conversations']} conversations of {overall['threads']} threads, "
            f"HitRatio@1 at most {ceiling:.4f}"
        )
        for way, metrics in overall["ways"].items():
            values = (f"{key} {m['value']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" for key, m in metrics.items())
            lines.append(f"  {way:<16} {'  '.join(values)}")
        shown = {way: "none" if r is None else f"{r:+.2f}" for way, r in overall.get("length_correlation", {}).items()}
        if shown:
            told = ", ".join(f"{way} {r}" for way, r in shown.items())
            lines.append(f"  correlation of an ID's tokens and its score within conversations: {told}")
    return lines


def _append_summary(path: Path, run: Mapping[str, Any], reports: Mapping[str, Any]) -> None:
    intervals = [f"{column}{end}" for column in COLUMNS for end in ("", "_low", "_high")]
    header = [*run, "group", "entries", "way", "conversations", "threads", "ceiling_hit_ratio@1", *intervals]
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            earlier = csv.DictReader(file)
            rows = list(earlier)
            # an earlier release's file has other columns
            header += [name for name in earlier.fieldnames or () if name not in header]
    for group, by_entries in reports.items():
        for entries, content in by_entries.items():
            for way, metrics in content["ways"].items():
                row = {**run, "group": group, "entries": entries, "way": way}
                row["conversations"], row["threads"] = content["conversations"], content["threads"]
                row["ceiling_hit_ratio@1"] = content["ceilings"].get("hit_ratio@1")
                for column, interval in metrics.items():
                    row[column] = interval["value"]
                    row |= {f"{column}_low": interval["low"], f"{column}_high": interval["high"]}
                rows.append(row)
    with io.StringIO(newline="") as table:
        writer = csv.DictWriter(table, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, table.getvalue())
