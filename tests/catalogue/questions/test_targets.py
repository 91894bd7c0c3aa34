"""What is trained of several answers, and the order of choices, depend on seed and question alone."""

import subprocess
import sys
from collections import Counter

import pytest

from lavic.catalogue.questions.question import Truth
from lavic.catalogue.questions.targets import shuffled, trained_answers

ANSWERS = ["yes"] * 3 + ["no"] * 6 + ["maybe"]


def test_most_takes_the_answer_of_most() -> None:
    assert trained_answers(ANSWERS, "most", 0, "q") == [("no", 1.0)]
    assert trained_answers(["b", "a", "a", "b"], "most", 0, "q") == [("b", 1.0)]
    assert trained_answers([], "most", 0, "q") == []


def test_each_weighs_by_agreement() -> None:
    assert trained_answers(ANSWERS, "each", 0, "q") == [("yes", 0.3), ("no", 0.6), ("maybe", 0.1)]


def test_sample_draws_as_often_as_people_gave_it() -> None:
    drawn = Counter(trained_answers(ANSWERS, "sample", 1, f"q{n}")[0][0] for n in range(4000))
    assert drawn["no"] / 4000 == pytest.approx(0.6, abs=0.03)
    assert drawn["maybe"] / 4000 == pytest.approx(0.1, abs=0.02)
    epochs = [trained_answers(ANSWERS, "sample", 1, "q", epoch) for epoch in range(40)]
    assert len({answer for [(answer, _)] in epochs}) > 1
    assert epochs == [trained_answers(ANSWERS, "sample", 1, "q", epoch) for epoch in range(40)]


def test_choices_are_shuffled_and_the_right_one_followed() -> None:
    truth = Truth(("b",), ("a", "b", "c", "d"), 1)
    places: Counter[int] = Counter()
    for n in range(2000):
        found = shuffled(truth, 5, f"q{n}")
        assert sorted(found.choices) == ["a", "b", "c", "d"]
        assert found.correct is not None
        assert found.choices[found.correct] == "b"
        places[found.correct] += 1
    assert all(count / 2000 == pytest.approx(0.25, abs=0.04) for count in places.values())
    assert shuffled(truth, 5, "q") == shuffled(truth, 5, "q")
    assert any(shuffled(truth, 5, f"q{n}") != shuffled(truth, 6, f"q{n}") for n in range(10))
    assert shuffled(Truth(("x",)), 5, "q") == Truth(("x",))


def test_another_process_draws_the_same() -> None:
    program = (
        "from lavic.catalogue.questions.targets import *; from lavic.catalogue.questions.question import Truth;"
        "print(shuffled(Truth((), tuple('abcdefgh'), 1), 5, 'q'), trained_answers(list('abcdefgh'), 'sample', 5, 'q'))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    here = shuffled(Truth((), tuple("abcdefgh"), 1), 5, "q"), trained_answers(list("abcdefgh"), "sample", 5, "q")
    assert said.strip() == f"{here[0]} {here[1]}"
