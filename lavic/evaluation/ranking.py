"""Stage 2's numbers: what share of the conversations got the right item, and how sure that share is.

Every metric is a ratio of two sums over conversations (numerator, denominator), so one bootstrap over the threads that
they were taken from serves them all (`lavic/evaluation/intervals.py`). Definitions:

- `hit_ratio@1`: the named item is one of the conversation's ground truths; a conversation counts once.
- `recall@1_micro`: the original's Recall@1: pooled over (conversation, ground truth) pairs, a repeated
  ground truth counting each time. It moves with repetitions; kept to compare with published numbers.
- `valid_ratio`: the named item is one of the candidates.
- `hit_ratio@3/5`, `mrr`: by the rank of the best ground truth when the candidates are sorted by the model's
  likelihood. Ties and scores that are not finite count against the model.
- `ndcg`: over all candidates, by the ranks of all distinct ground truths, each worth 1 / log2(1 + rank); the ideal
  holds every one of them, also those that are no candidate.
"""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lavic.evaluation.intervals import RESAMPLES, Floats, intervals
from lavic.evaluation.intervals import Interval as Interval

TOP_KS = (3, 5)
_SUBMISSION = re.compile(r"<submission>(.*?)(?:</submission>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Prediction:
    """A conversation's outcome.

    Attributes:
        candidates: the IDs to choose from.
        gt_items: the right ones; may repeat an ID.
        named: the item that was recommended, if any.
        scores: one a candidate, the likeliest highest; nothing when the candidates were not scored.
        thread: what the conversation was taken from; intervals draw whole threads. Null: it stands for itself.
    """

    candidates: tuple[str, ...]
    gt_items: tuple[str, ...]
    named: str | None
    scores: tuple[float, ...] | None = None
    thread: str | None = None


def by_score(
    candidates: Sequence[str], gt_items: Sequence[str], scores: Sequence[float], thread: str | None = None
) -> Prediction:
    """The prediction that names the candidate of the highest score."""
    best = max(range(len(candidates)), key=lambda i: (not math.isnan(scores[i]), scores[i]))
    return Prediction(tuple(candidates), tuple(gt_items), candidates[best], tuple(scores), thread)


def ranks_of_truths(prediction: Prediction) -> list[float]:
    """1-based rank of every distinct ground truth by score, the best first; infinite for one that is no candidate or
    whose score is not finite. Items of equal score, or of none, stand before a truth."""
    truths = set(prediction.gt_items)
    if prediction.scores is None:
        return [math.inf] * len(truths)
    scored = list(zip(prediction.candidates, prediction.scores, strict=True))
    placed = sorted((score for item, score in scored if item in truths and math.isfinite(score)), reverse=True)
    others = [score for item, score in scored if item not in truths]
    ranks = [place + sum(not other < score for other in others) for place, score in enumerate(placed, 1)]
    return [*ranks, *[math.inf] * (len(truths) - len(ranks))]


def rank_of_truth(prediction: Prediction) -> float:
    """1-based rank of the best-placed ground truth; infinite when there is none."""
    return min(ranks_of_truths(prediction), default=math.inf)


def ndcg(prediction: Prediction) -> float:
    """Normalised discounted cumulative gain with a gain of 1 for every distinct ground truth; 0 without one."""
    ranks = ranks_of_truths(prediction)
    ideal = sum(1 / math.log2(1 + place) for place in range(1, len(ranks) + 1))
    return sum(1 / math.log2(1 + rank) for rank in ranks) / ideal if ranks else 0.0


def ceilings(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The best value that any model could reach with these candidates."""
    reachable = sum(not set(p.gt_items).isdisjoint(p.candidates) for p in predictions)
    best_pairs = sum(max((p.gt_items.count(item) for item in p.candidates), default=0) for p in predictions)
    pairs = sum(len(p.gt_items) for p in predictions)
    return {
        "hit_ratio@1": reachable / len(predictions) if predictions else math.nan,
        "recall@1_micro": best_pairs / pairs if pairs else math.nan,
    }


def evaluate(predictions: Sequence[Prediction], resamples: int = RESAMPLES, seed: int = 42) -> dict[str, Interval]:
    """Every metric with its interval over threads; empty for no predictions."""
    return intervals(columns_of(predictions), threads_of(predictions), resamples, seed) if predictions else {}


def threads_of(predictions: Sequence[Prediction]) -> list[Hashable]:
    """What each prediction belongs to."""
    return [row if p.thread is None else p.thread for row, p in enumerate(predictions)]


def report(ways: Mapping[str, Sequence[Prediction]], seed: int = 42) -> dict[str, Any]:
    """All numbers, ready for JSON: for all conversations and for those with several distinct truths, the
    ceilings and each way's metrics. Every way (a kind of decoding, or a control) has predicted the same
    conversations; those without a ground truth have no right answer and are left out."""
    groups = {
        "overall": {way: [p for p in predictions if p.gt_items] for way, predictions in ways.items()},
        "multi_truth": {way: [p for p in predictions if len(set(p.gt_items)) > 1] for way, predictions in ways.items()},
    }
    reports = {}
    for group, chosen in groups.items():
        some = next(iter(chosen.values()), [])
        metrics = {
            way: {name: asdict(interval) for name, interval in evaluate(predictions, seed=seed).items()}
            for way, predictions in chosen.items()
        }
        reports[group] = {
            "conversations": len(some),
            "threads": len(set(threads_of(some))),
            "ceilings": ceilings(some) if some else {},
            "ways": metrics,
        }
    return reports


def columns_of(predictions: Sequence[Prediction]) -> dict[str, tuple[Floats, Floats]]:
    """Each metric's numerator and denominator by conversation, two arrays of shape (N,)."""
    ones = np.ones(len(predictions))
    pairs = np.array([len(p.gt_items) for p in predictions], dtype=np.float64)
    pair_hits = np.array([p.gt_items.count(p.named) if p.named else 0 for p in predictions], dtype=np.float64)
    valid = np.array([p.named in p.candidates for p in predictions], dtype=np.float64)
    columns = {
        "hit_ratio@1": ((pair_hits > 0).astype(np.float64), ones),
        "recall@1_micro": (pair_hits, pairs),
        "valid_ratio": (valid, ones),
    }
    if all(p.scores is not None for p in predictions):
        ranks = np.array([rank_of_truth(p) for p in predictions])
        columns |= {f"hit_ratio@{k}": ((ranks <= k).astype(np.float64), ones) for k in TOP_KS}
        columns["mrr"] = (1 / ranks, ones)
        columns["ndcg"] = (np.array([ndcg(p) for p in predictions]), ones)
    return columns


def thread_of(context: str) -> str:
    """Returns what the conversations of one thread have in common: its submission, or all of a context without one."""
    found = _SUBMISSION.search(context)
    submission = found.group(1).split() if found else []
    return " ".join(submission or context.split())
