"""Intervals against scipy's bootstrap on the same draws, and over clusters."""

import numpy as np
import pytest

from lavic.evaluation.intervals import Interval, intervals, ratio_draws

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (the extra dev)")


def test_intervals_equal_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).normal(size=300)
    right = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    ours = intervals({"mean": (values, np.ones(300))}, resamples=1000, seed=7)["mean"]
    assert (ours.value, ours.low, ours.high) == pytest.approx((values.mean(), right.low, right.high), abs=1e-12)


def test_a_ratio_of_sums_equals_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    above, below = rng.integers(0, 3, 200).astype(float), rng.integers(3, 6, 200).astype(float)
    right = scipy_stats.bootstrap(
        (above, below), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, vectorized=True,
        n_resamples=800, method="percentile", rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    ours = intervals({"ratio": (above, below)}, resamples=800, seed=3)["ratio"]
    assert (ours.low, ours.high) == pytest.approx((right.low, right.high), abs=1e-12)


def test_clusters_are_drawn_whole() -> None:
    """Against a plain loop that draws lists of rows."""
    rng = np.random.default_rng(2)
    clusters = [f"image {i}" for i in rng.integers(0, 40, 200)]
    right = np.array([rng.random() < (0.8 if int(name.split()[1]) % 2 else 0.2) for name in clusters], dtype=float)
    names = sorted(set(clusters))
    draws = []
    for _ in range(4000):
        rows = [r for name in rng.choice(names, len(names)) for r, c in zip(right, clusters, strict=True) if c == name]
        draws.append(np.mean(rows))
    low, high = np.percentile(draws, [2.5, 97.5])
    columns = {"share": (right, np.ones(200))}
    ours = intervals(columns, clusters, resamples=4000)["share"]
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.02)
    by_row = intervals(columns, resamples=4000)["share"]
    assert by_row.high - by_row.low < 0.75 * (ours.high - ours.low)


def test_blocks_give_one_stream_of_draws() -> None:
    columns = {"x": (np.arange(3000.0), np.ones(3000))}
    assert (ratio_draws(columns, resamples=1500)[:200] == ratio_draws(columns, resamples=200)).all()
    assert intervals({"x": (np.zeros(0), np.zeros(0))}) == {}
    assert Interval(0.5, 0.4, 0.6).apart_from(Interval(0.7, 0.61, 0.8))
    assert not Interval(0.5, 0.4, 0.6).apart_from(Interval(0.6, 0.6, 0.8))
