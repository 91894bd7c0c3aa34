"""Relaxed accuracy: numbers may be 5% off, texts not at all (ChartQA, Masry et al., 2022).

As pix2struct's evaluator, which papers use: a number is what Python reads as one, and what ends in % is divided by 100,
so that `45` is no answer to `45%`. A reference of 0, and what is no number, has to be met letter by letter, in either
case; white space and units count as letters. (ChartQA's authors publish no script of their own.)
"""

from collections.abc import Sequence

TOLERANCE = 0.05


def relaxed_accuracy(prediction: str, references: Sequence[str]) -> float:
    """1 where the prediction is near enough to any reference, else 0."""
    return float(any(_is_near(prediction, reference) for reference in references))


def _is_near(prediction: str, reference: str) -> bool:
    said, right = _number(prediction), _number(reference)
    if said is None or not right:
        return prediction.lower() == reference.lower()
    return abs(said - right) / abs(right) <= TOLERANCE


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
