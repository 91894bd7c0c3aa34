"""Paired tests against statsmodels and scipy on the same tables."""

import random
import statistics

import numpy as np
import pytest

from lavic.evaluation.comparison import mcnemar, paired_bootstrap, spread

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (the extra dev)")
tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is not installed")


@pytest.mark.parametrize("size", [1, 7, 40, 400, 3000])
def test_mcnemar_equals_statsmodels(size: int) -> None:
    rng = random.Random(size)
    for share in (0.3, 0.5, 0.7):
        first = [rng.random() < 0.5 for _ in range(size)]
        second = [rng.random() < share for _ in range(size)]
        table = np.zeros((2, 2))
        for a, b in zip(first, second, strict=True):
            table[int(a), int(b)] += 1
        ours = mcnemar(first, second)
        assert (ours.only_first, ours.only_second) == (table[1, 0], table[0, 1])
        if table[1, 0] + table[0, 1] == 0:
            assert (ours.p_exact, ours.p_asymptotic) == (1, 1)
            continue
        assert ours.p_exact == pytest.approx(tables.mcnemar(table, exact=True).pvalue, rel=1e-9)
        right = tables.mcnemar(table, exact=False, correction=True)
        assert (ours.statistic, ours.p_asymptotic) == pytest.approx((right.statistic, right.pvalue), rel=1e-9)


def test_the_paired_bootstrap_equals_scipys_on_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    first = (rng.random(250) < 0.6).astype(float)
    second = np.where(rng.random(250) < 0.7, first, rng.random(250) < 0.5).astype(float)
    right = scipy_stats.bootstrap(
        (first, second), lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True, vectorized=True,
        n_resamples=2000, method="percentile", rng=np.random.default_rng(5),
    )  # fmt: skip
    ones = np.ones(250)
    ours = paired_bootstrap((first, ones), (second, ones), resamples=2000, seed=5)
    assert ours.value == pytest.approx(first.mean() - second.mean())
    interval = right.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    draws = right.bootstrap_distribution
    assert ours.p == pytest.approx(
        min(1, 2 * (min((draws <= 1e-12).sum(), (draws >= -1e-12).sum()) + 1) / 2001), abs=0.01
    )


def test_p_values_of_equal_systems_are_not_small_more_often_than_they_say() -> None:
    small = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        first, second = (rng.random((2, 80)) < 0.5).astype(float)
        ones = np.ones(80)
        small += paired_bootstrap((first, ones), (second, ones), resamples=400, seed=trial).p < 0.05
    assert 2 <= small <= 22
    same = np.ones(20)
    assert paired_bootstrap((same, same), (same, same)).p == 1


def test_clusters_widen_the_difference() -> None:
    rng = np.random.default_rng(3)
    first = np.repeat((rng.random(60) < 0.6).astype(float), 5)
    second = np.repeat((rng.random(60) < 0.4).astype(float), 5)
    ones, clusters = np.ones(300), [i // 5 for i in range(300)]
    rows = paired_bootstrap((first, ones), (second, ones))
    whole = paired_bootstrap((first, ones), (second, ones), clusters)
    assert (whole.high - whole.low) / (rows.high - rows.low) == pytest.approx(5**0.5, rel=0.15)
    assert whole.p > rows.p


def test_seeds_are_a_mean_and_a_spread() -> None:
    values = [0.31, 0.36, 0.29]
    ours = spread(values)
    assert (ours.seeds, ours.low, ours.high) == (3, 0.29, 0.36)
    assert (ours.mean, ours.deviation) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    assert spread([0.5]).deviation is None
