"""Stage 2's numbers: what share of the conversations got the right item, and how sure that share is.

Every metric is a ratio of two sums over conversations (numerator, denominator), so one bootstrap over
conversations serves them all. Definitions:

- `hit_ratio@1`: the named item is one of the conversation's ground truths; a conversation counts once.
- `recall@1_micro`: the original's Recall@1: pooled over (conversation, ground truth) pairs, a repeated
  ground truth counting each time. It moves with repetitions; kept to compare with published numbers.
- `valid_ratio`: the named item is one of the candidates.
- `hit_ratio@3/5`, `mrr`: by the rank of the best ground truth when the candidates are sorted by the model's
  likelihood. Ties and scores that are not finite count against the model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavic.evaluation.item_ids import named_item as named_item  # `lavic.metrics.named_item` of 0.1 resolves here

TOP_KS = (3, 5)


@dataclass(frozen=True)
class Prediction:
    """A conversation's outcome. `named` is the item that was recommended, if any; `scores` holds one
    log-likelihood (nats) a candidate, or nothing when the candidates were not scored."""

    candidates: tuple[str, ...]
    gt_items: tuple[str, ...]
    named: str | None
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Interval:
    """A value and its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def apart_from(self, other: "Interval") -> bool:
        """Whether the two intervals do not overlap."""
        return self.low > other.high or other.low > self.high


def by_score(candidates: Sequence[str], gt_items: Sequence[str], scores: Sequence[float]) -> Prediction:
    """The prediction that names the candidate of the highest score."""
    best = max(range(len(candidates)), key=lambda i: (not math.isnan(scores[i]), scores[i]))
    return Prediction(tuple(candidates), tuple(gt_items), candidates[best], tuple(scores))


def rank_of_truth(prediction: Prediction) -> float:
    """1-based rank of the best-placed ground truth by score; infinite when no candidate is one, or its score
    is not finite."""
    if prediction.scores is None:
        return math.inf
    scored = list(zip(prediction.candidates, prediction.scores, strict=True))
    truths = [score for item, score in scored if item in prediction.gt_items and math.isfinite(score)]
    if not truths:
        return math.inf
    others = (score for item, score in scored if item not in prediction.gt_items)
    return 1 + sum(not score < max(truths) for score in others)


def ceilings(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The best value that any model could reach with these candidates."""
    reachable = sum(not set(p.gt_items).isdisjoint(p.candidates) for p in predictions)
    best_pairs = sum(max((p.gt_items.count(item) for item in p.candidates), default=0) for p in predictions)
    pairs = sum(len(p.gt_items) for p in predictions)
    return {
        "hit_ratio@1": reachable / len(predictions) if predictions else math.nan,
        "recall@1_micro": best_pairs / pairs if pairs else math.nan,
    }


def evaluate(predictions: Sequence[Prediction], resamples: int = 2000, seed: int = 42) -> dict[str, Interval]:
    """Every metric with its interval: the 2.5th and 97.5th percentile over `resamples` samples of as many
    conversations, drawn with replacement (Efron's percentile bootstrap). Empty for no predictions."""
    if not predictions:
        return {}
    columns = _columns(predictions)
    numerators = np.array([numerator for numerator, _ in columns.values()]).T
    denominators = np.array([denominator for _, denominator in columns.values()]).T
    values = numerators.sum(0) / denominators.sum(0)
    draws = _bootstrap(numerators, denominators, resamples, seed)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return {name: Interval(float(values[i]), float(low[i]), float(high[i])) for i, name in enumerate(columns)}


def report(ways: Mapping[str, Sequence[Prediction]], seed: int = 42) -> dict[str, Any]:
    """All numbers, ready for JSON: for all conversations and for those with several distinct truths, the
    ceilings and each way's metrics. Every way (a kind of decoding, or a control) has predicted the same
    conversations; those without a ground truth have no right answer and are left out."""
    groups = {
        "overall": {way: [p for p in predictions if p.gt_items] for way, predictions in ways.items()},
        "multi_truth": {
            way: [p for p in predictions if len(set(p.gt_items)) > 1] for way, predictions in ways.items()
        },
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
            "ceilings": ceilings(some) if some else {},
            "ways": metrics,
        }
    return reports


def _columns(predictions: Sequence[Prediction]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
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
    return columns


def _bootstrap(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """(resamples, metrics): each metric over each resample. A resample is kept as how often it holds each
    conversation, so its sums are one matrix product; blocks keep the counts under some 32 MB."""
    rng = np.random.default_rng(seed)
    size = len(numerators)
    blocks = []
    for start in range(0, resamples, block := max(1, 4_000_000 // size)):
        rows = min(block, resamples - start)
        picks = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
        blocks.append((counts @ numerators) / (counts @ denominators))
    return np.concatenate(blocks)
