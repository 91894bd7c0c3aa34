"""A test over the whole catalogue: how often retrieval finds the right item, and the pair of both names it.

Candidates are retrieved, never injected, and a conversation whose truth was not found counts as a miss of everything.
Of all conversations with a ground truth:

- `recall@k`: the share of distinct truths, pooled, among the first k that were retrieved;
- `hit_ratio@k`: the share of conversations with a truth among the first k, by each way to order what was retrieved:
  the model's likelihoods, those without images and with another item's, and retrieval's own order;
- `mrr`: the mean of 1 / the best truth's rank, 0 where none was retrieved.

Intervals are 95% percentile bootstraps over threads, since several rows of a file may come of one (same category and
opening post) and are not independent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from lavic.catalogue.conversations import Conversation
from lavic.evaluation.intervals import Floats, intervals
from lavic.evaluation.ranking import Prediction, rank_of_truth, thread_of
from lavic.files import write_text
from lavic.tasks.recommendation.results import Answer

HITS = (1, 10)
RETRIEVAL = "retrieval_order"


def end_to_end(
    conversations: Sequence[Conversation], scores: Mapping[str, Sequence[Sequence[float]]], k: int, seed: int
) -> dict[str, Any]:
    """All numbers, ready for JSON.

    Args:
        conversations: with retrieved candidates, best first; also those that got none.
        scores: for each way, a score of every candidate of every conversation.
        k: candidates that were asked for.
        seed: of the bootstrap.
    """
    rows = [row for row, conversation in enumerate(conversations) if conversation.gt_items]
    judged = [conversations[row] for row in rows]
    ways = {way: [given[row] for row in rows] for way, given in scores.items()}
    ways[RETRIEVAL] = [[-float(place) for place in range(len(c.candidates))] for c in judged]
    ones = np.ones(len(judged))
    truths = np.array([len(set(c.gt_items)) for c in judged], dtype=np.float64)
    columns: dict[tuple[str, str], tuple[Floats, Floats]] = {}  # by way and metric
    for depth in sorted({*HITS, k}):
        found = [len(set(c.gt_items) & set(c.candidates[:depth])) for c in judged]
        columns["retrieval", f"recall@{depth}"] = np.array(found, dtype=np.float64), truths
    for way, given in ways.items():
        ranks = np.array([_rank(c, one) for c, one in zip(judged, given, strict=True)])
        for depth in HITS:
            columns[way, f"hit_ratio@{depth}"] = (ranks <= depth).astype(np.float64), ones
        columns[way, "mrr"] = 1 / ranks, ones
    threads = [(c.category, thread_of(c.context)) for c in judged]
    names = {f"{way}/{metric}": (way, metric) for way, metric in columns}
    named = {name: columns[place] for name, place in names.items()}
    metrics: dict[str, Any] = {way: {} for way in ("retrieval", *ways)}
    for name, interval in intervals(named, threads, seed=seed).items():
        way, metric = names[name]
        metrics[way][metric] = asdict(interval)
    recall = metrics.pop("retrieval")
    nothing = sum(not c.candidates for c in judged)
    return {"conversations": len(judged), "nothing_matched": nothing, "k": k, "retrieval": recall, "ways": metrics}


def write_end_to_end(
    folder: Path,
    answered: Sequence[Conversation],
    answers: Sequence[Answer],
    unmatched: Sequence[Conversation],
    k: int,
    seed: int,
) -> list[str]:
    """Writes `end_to_end.json`, overall and by category, and returns its main numbers as lines of text.

    Beside it, `end_to_end_results.jsonl` holds the ranks that they come from, for `python -m lavic compare`.

    Args:
        folder: the output directory.
        answered: the conversations that were tested.
        answers: one for each.
        unmatched: those for which nothing was retrieved.
        k: candidates that were asked for.
        seed: of the bootstrap.
    """
    conversations = [*answered, *unmatched]
    scores: dict[str, list[Sequence[float]]] = {
        way: [*(answer.scores[way] for answer in answers), *(() for _ in unmatched)] for way in answers[0].scores
    }
    groups = {"all": list(range(len(conversations)))}
    categories = sorted({conversation.category for conversation in conversations})
    if len(categories) > 1:
        groups |= {name: [i for i, c in enumerate(conversations) if c.category == name] for name in categories}
    reports = {
        group: end_to_end(
            [conversations[i] for i in rows], {way: [given[i] for i in rows] for way, given in scores.items()}, k, seed
        )
        for group, rows in groups.items()
        if any(conversations[i].gt_items for i in rows)
    }
    write_text(folder / "end_to_end.json", json.dumps(reports, indent=1, allow_nan=False))
    rows = (_row(c, {way: given[i] for way, given in scores.items()}) for i, c in enumerate(conversations))
    write_text(folder / "end_to_end_results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return [line for group, report in reports.items() for line in _lines(group, report)]


def _lines(group: str, report: Mapping[str, Any]) -> list[str]:
    def told(metrics: Mapping[str, Mapping[str, float]]) -> str:
        return "  ".join(f"{name} {m['value']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" for name, m in metrics.items())

    head = f"{group}, over the whole catalogue: {report['conversations']} conversations"
    if report["nothing_matched"]:
        head += f", {report['nothing_matched']} of which match nothing in it and count as misses"
    lines = [head, f"  {'retrieval':<16} {told(report['retrieval'])}"]
    return [*lines, *(f"  {way:<16} {told(metrics)}" for way, metrics in report["ways"].items())]


def _row(conversation: Conversation, scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """A conversation and the rank of its best truth by each way; null where it was not retrieved."""
    orders = {**scores, RETRIEVAL: [-float(place) for place in range(len(conversation.candidates))]}
    ranks = {way: _rank(conversation, given) for way, given in orders.items()}
    return {
        "category": conversation.category,
        "context": conversation.context,
        "gt_items": list(conversation.gt_items),
        "ranks": {way: int(rank) if rank < inf else None for way, rank in ranks.items()},
    }


def _rank(conversation: Conversation, scores: Sequence[float]) -> float:
    return rank_of_truth(Prediction(conversation.candidates, conversation.gt_items, None, tuple(scores)))
