"""Metrics know their direction; a report knows its metrics."""

import math

import pytest

from lavic.errors import UserError
from lavic.training.protocols import VAL_LOSS, VISUAL_GAIN, Metric, TaskReport

EXACT = Metric("exact_match", "exact match", form=".1%", better="higher")
REPORT = TaskReport("vqa", "answers", (EXACT, VAL_LOSS, VISUAL_GAIN), monitored="exact_match")


def test_better_is_lower_or_higher_by_more_than_asked() -> None:
    assert VAL_LOSS.improves(0.5, 0.6)
    assert not VAL_LOSS.improves(0.5, 0.5)
    assert EXACT.improves(0.6, 0.5)
    assert not EXACT.improves(0.6009, 0.6, by=0.001)
    assert EXACT.improves(0.6011, 0.6, by=0.001)
    assert not VAL_LOSS.improves(math.nan, math.inf)
    assert not EXACT.improves(math.inf, EXACT.worst)
    assert VAL_LOSS.improves(1e9, VAL_LOSS.worst)


def test_a_headline_says_a_repeated_unit_once() -> None:
    values = {"exact_match": 0.5, "val_loss": 0.25, "visual_gain": 1.0}
    assert REPORT.headline_text(values) == "exact match 50.0%, val_loss 0.2500, visual_gain 1.0000 nats a token"


def test_what_is_not_measured_is_named() -> None:
    with pytest.raises(UserError, match="does not measure 'bleu'; it has exact_match, val_loss, visual_gain"):
        REPORT.metric("bleu")
    assert [m["monitored"] for m in REPORT.described()] == [True, False, False]
