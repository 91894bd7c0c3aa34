"""Whether one system is better than another on the same conversations or questions, and how seeds scatter.

Two tests, for two questions. The paired bootstrap draws whole threads or images and gives the difference with an
interval; it holds for any ratio and for rows that belong together. McNemar's test (1947) looks at the rows that one
system alone got right; it needs right or wrong, and takes rows for independent.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lavic.evaluation.intervals import LEVELS, RESAMPLES, Floats, ratio_draws


@dataclass(frozen=True)
class Difference:
    """The first system's value less the second's, its 95% interval, and the two-sided p value of no difference."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two systems on the same rows.

    Attributes:
        only_first: rows that the first alone got right.
        only_second: rows that the second alone got right.
        p_exact: two-sided, by the binomial distribution.
        statistic: chi-squared with one degree of freedom, with Edwards' continuity correction.
        p_asymptotic: of that statistic.
    """

    only_first: int
    only_second: int
    p_exact: float
    statistic: float
    p_asymptotic: float


@dataclass(frozen=True)
class Spread:
    """Several seeds of one system: mean, standard deviation (n - 1; null for one), least and greatest."""

    seeds: int
    mean: float
    deviation: float | None
    low: float
    high: float


def paired_bootstrap(
    first: tuple[Floats, Floats],
    second: tuple[Floats, Floats],
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 42,
) -> Difference:
    """The difference of two ratios of sums over the same rows, both on the same resamples.

    Args:
        first: numerators and denominators by row, each (N,).
        second: the other system's, row by row the same cases.
        clusters: what each row belongs to; null takes every row for itself.
        resamples: how many samples are drawn.
        seed: of the draws.
    """
    draws = ratio_draws({"first": first, "second": second}, clusters, resamples, seed)
    differences = draws[:, 0] - draws[:, 1]
    low, high = np.percentile(differences, LEVELS)
    value = float(first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum())
    # a p value of exactly 0 is more than a finite number of draws can show: Davison and Hinkley (1997), 4.2.3
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Difference(value, float(low), float(high), min(1.0, 2 * (tail + 1) / (resamples + 1)))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """The test on each row's right or wrong of two systems."""
    pairs = list(zip(first, second, strict=True))
    only_first = sum(bool(a) and not b for a, b in pairs)
    only_second = sum(bool(b) and not a for a, b in pairs)
    apart = only_first + only_second
    if not apart:
        return McNemar(0, 0, 1.0, 0.0, 1.0)
    # in whole numbers: 0.5 ** n underflows where many rows differ
    tail = sum(math.comb(apart, k) for k in range(min(only_first, only_second) + 1))
    statistic = (abs(only_first - only_second) - 1) ** 2 / apart
    return McNemar(
        only_first, only_second, min(1.0, 2 * tail / 2**apart), statistic, math.erfc(math.sqrt(statistic / 2))
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean and scatter of one system's value over its seeds."""
    numbers = np.array(values, dtype=np.float64)
    deviation = float(numbers.std(ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(numbers.mean()), deviation, float(numbers.min()), float(numbers.max()))
