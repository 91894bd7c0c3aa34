"""95% intervals by Efron's percentile bootstrap, over what is independent.

Every number here is a ratio of two sums over rows: hits over conversations, right answers over questions. Rows that
share a source (comments of one thread, questions about one image) are not independent, and an interval over rows is
then too narrow; so whole clusters are drawn, with replacement, as many as there are.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = Mapping[str, tuple[Floats, Floats]]  # a metric's numerators and denominators by row, each (N,)

RESAMPLES = 2000
LEVELS = (2.5, 97.5)  # percentiles of a 95% interval


@dataclass(frozen=True)
class Interval:
    """A value and its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def apart_from(self, other: "Interval") -> bool:
        """Whether the two intervals do not overlap."""
        return self.low > other.high or other.low > self.high


def intervals(
    columns: Columns, clusters: Sequence[Hashable] | None = None, resamples: int = RESAMPLES, seed: int = 42
) -> dict[str, Interval]:
    """Each column's ratio of sums with its interval; empty without rows.

    Args:
        columns: the metrics.
        clusters: for each of the N rows what it belongs to; null takes every row for itself.
        resamples: how many samples are drawn.
        seed: of the draws; the same rows give the same intervals.
    """
    if not columns or not len(next(iter(columns.values()))[0]):
        return {}
    low, high = np.percentile(ratio_draws(columns, clusters, resamples, seed), LEVELS, axis=0)
    values = {name: float(above.sum() / below.sum()) for name, (above, below) in columns.items()}
    return {name: Interval(value, float(low[i]), float(high[i])) for i, (name, value) in enumerate(values.items())}


def ratio_draws(
    columns: Columns, clusters: Sequence[Hashable] | None = None, resamples: int = RESAMPLES, seed: int = 42
) -> Floats:
    """(resamples, metrics): each ratio over each resample, the same resamples for all.

    A resample is kept as how often it holds each cluster, so its sums are one matrix product; blocks keep the counts
    under some 32 MB.
    """
    numerators = _by_cluster(np.stack([above for above, _ in columns.values()], axis=1), clusters)
    denominators = _by_cluster(np.stack([below for _, below in columns.values()], axis=1), clusters)
    rng = np.random.default_rng(seed)
    size = len(numerators)
    blocks = []
    for start in range(0, resamples, block := max(1, 4_000_000 // size)):
        rows = min(block, resamples - start)
        picks = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)
        blocks.append((counts @ numerators) / (counts @ denominators))
    return np.concatenate(blocks)


def _by_cluster(rows: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """(N, M) -> (clusters, M): sums, the clusters in the order of their first row."""
    if clusters is None:
        return rows
    places: dict[Hashable, int] = {}
    owners = [places.setdefault(cluster, len(places)) for cluster in clusters]
    sums = np.zeros((len(places), rows.shape[1]))
    np.add.at(sums, owners, rows)
    return sums
