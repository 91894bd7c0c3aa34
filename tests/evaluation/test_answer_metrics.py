"""What counts as right: by hand for the oddities, and against a plain implementation of our own for everything."""

import itertools
import math
import re
import string
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from lavic.catalogue.questions.question import Truth
from lavic.evaluation import contractions
from lavic.evaluation.anls import anls, levenshtein
from lavic.evaluation.answer_metrics import METRICS, best_constant, ceiling, columns
from lavic.evaluation.intervals import intervals
from lavic.evaluation.multiple_choice import chosen
from lavic.evaluation.relaxed_accuracy import relaxed_accuracy
from lavic.evaluation.unanswerable import average_precision
from lavic.evaluation.vqa_accuracy import (
    AGREED,
    COMMA,
    EMPTY,
    NONE,
    direct_answer_accuracy,
    quirks,
    textvqa_accuracy,
    textvqa_form,
    vizwiz_accuracy,
    vqa_accuracy,
    vqa_form,
)
from tests.evaluation.made_up_answers import cases


def said_by(*counts: tuple[str, int]) -> list[str]:
    """Ten references, so many of each."""
    given = [text for text, count in counts for _ in range(count)]
    assert len(given) == 10
    return given


@pytest.mark.parametrize(("people", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_ten_sets_of_nine_and_not_all_ten(people: int, score: float) -> None:
    """Against all ten at once, three of ten would be 1.0 and one of ten 1/3."""
    references = said_by(("cat", people), ("dog", 10 - people))
    for accuracy in (vqa_accuracy, textvqa_accuracy, vizwiz_accuracy):
        assert accuracy("cat", references) == pytest.approx(score)


def test_accuracy_is_the_mean_over_sets_that_lack_one_each() -> None:
    for case in cases(400, 10):
        forms = [textvqa_form(reference) for reference in case.references]
        said = textvqa_form(case.prediction)
        total = sum(
            min(Fraction(1), Fraction(sum(other == said for other in nine), 3))
            for nine in itertools.combinations(forms, 9)
        )
        assert textvqa_accuracy(case.prediction, case.references) == pytest.approx(float(total / 10))


def test_vqav2_leaves_texts_alone_where_all_agree() -> None:
    assert vqa_accuracy("Black.", said_by(("black", 10))) == 0
    assert vqa_accuracy("Black.", said_by(("black", 9), ("dark", 1))) == 1
    assert textvqa_accuracy("Black.", said_by(("black", 10))) == 1
    assert vizwiz_accuracy("Black.", said_by(("black", 10))) == 1
    assert vizwiz_accuracy("black", said_by(("Black", 10))) == 0  # references as published
    assert direct_answer_accuracy("Black", said_by(("black", 10))) == 0


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The  Two dogs", "2 dogs"),
        ("none", "0"),
        ("a", ""),
        ("An apple a day", "apple day"),
        ("dont", "don't"),
        ("Im here", "im here"),  # the table has a capital, texts are in lower case by then
        ("somebody'd", "somebodyd"),
        ("'ows'at", "'ow's'at"),
        ("t-shirt", "t shirt"),
        ("t- shirt", "t shirt"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("1,000", "1000"),
        ("1,000 t-shirt", "1000 tshirt"),  # the comma between digits drops the hyphen too
        ("1, 000", "1 000"),
        ("3.14", "3.14"),
        ("5.", "5"),
        (".5", ".5"),
        ("u.s.a.", "usa"),
        ("." * 40, "." * 8),
        ("line\nbreak\there", "line break here"),
        ("", ""),
    ],
)
def test_what_vqas_evaluator_makes_of_a_text(text: str, form: str) -> None:
    assert vqa_form(text) == form


def test_what_textvqas_makes_of_it() -> None:
    assert textvqa_form("dog's") == "dog 's"
    assert textvqa_form("hello,world?") == "helloworld"
    assert vqa_form("hello,world?") == "hello world"


def test_vizwiz_writes_contractions_with_its_own_apostrophes() -> None:
    assert vizwiz_accuracy("dont know", said_by(("don’t know", 10))) == 1
    assert vizwiz_accuracy("dont know", said_by(("don't know", 10))) == 0
    assert vizwiz_accuracy("cant see", said_by(("can't see", 10))) == 1
    assert contractions.VIZWIZ["couldn'tve"] == "couldn’t’ve"
    assert len(contractions.VQA) == len(contractions.VIZWIZ)


def test_quirks_are_named_where_they_touch_a_question() -> None:
    two = said_by(("black", 9), ("none", 1))
    assert quirks("Black.", said_by(("black", 10))) == (AGREED,)
    assert quirks("black", said_by(("black", 10))) == ()
    assert quirks("red", said_by(("black", 10))) == ()
    assert quirks("black", two) == (NONE,)
    assert quirks("a", said_by(("black", 9), ("red", 1))) == (EMPTY,)
    assert quirks("1,000", said_by(("black", 9), ("red", 1))) == (COMMA,)


def test_anls_by_hand() -> None:
    assert anls("Pepsi", ["pepsi"]) == 1
    assert anls("  Pepsi   Cola ", ["pepsi cola"]) == 1
    assert anls("abcd", ["abxy"]) == 0.5  # one half is kept
    assert anls("abc", ["axy"]) == 0
    assert anls("kitten", ["sitting", "mittens"]) == pytest.approx(1 - 2 / 7)
    assert anls("", [""]) == 1
    assert anls("", ["x"]) == 0
    assert anls("ab  ", ["ax"]) == 0.75  # one letter of the four that were written
    assert anls("ß", ["x"]) == 0.5  # in upper case it has two letters


def test_levenshtein_is_the_least_number_of_edits() -> None:
    def plain(first: str, second: str) -> int:
        if not first or not second:
            return len(first) + len(second)
        swap = plain(first[1:], second[1:]) + (first[0] != second[0])
        return min(swap, plain(first[1:], second) + 1, plain(first, second[1:]) + 1)

    for size in range(4):
        for first in itertools.product("ab", repeat=size):
            for second in itertools.product("abc", repeat=3):
                assert levenshtein("".join(first), "".join(second)) == plain("".join(first), "".join(second))


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("105", "100", 1), ("95", "100", 1), ("105.1", "100", 0), ("-100", "100", 0), ("100.0", "100", 1),
        ("45%", "0.45", 1), ("45", "45%", 0), ("46%", "45%", 1), ("45 %", "45%", 1), ("5%%", "5%", 1),
        ("0", "0", 1), ("0.0", "0", 0), ("0.001", "0", 0), ("1,000", "1000", 0), ("$5", "5", 0), ("1e3", "1000", 1),
        ("Yes", "yes", 1), ("yes.", "yes", 0), ("", "", 1), ("", "5", 0), ("nan", "5", 0), ("nan", "nan", 0),
    ],
)  # fmt: skip
def test_relaxed_accuracy_by_hand(prediction: str, reference: str, score: int) -> None:
    assert relaxed_accuracy(prediction, [reference]) == score
    assert relaxed_accuracy(prediction, ["something else", reference]) == score


CHOICES = ["red", "Blue", "a dog", "B"]


@pytest.mark.parametrize(
    ("prediction", "letter", "text"),
    [
        ("B", 1, 3), ("(b)", 1, 3), ("B. Blue", 1, 1), ("C", 2, 2), ("Answer: C", 2, 2), ("answer is c.", 2, 2),
        ("The answer is C.", 2, 2), ("The answer is C. The answer is D.", None, None), ("blue", 1, 1), ("Blue.", 1, 1),
        ("dog", 2, 2), ("A dog", 2, 2), ("a dog", 2, 2), ("E", None, None), ("", None, None), ("the", None, None),
        ("I think red", None, None), ("red", 0, 0), ("a", 0, 0),
    ],
)  # fmt: skip
def test_which_choice_an_answer_names(prediction: str, letter: int | None, text: int | None) -> None:
    assert chosen(prediction, CHOICES, "letter") == letter
    assert chosen(prediction, CHOICES, "text") == text


def test_average_precision_is_the_area_of_steps() -> None:
    """Plainly: at each score, how many of those at least as sure are unanswerable."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        scores, truths = rng.integers(0, 4, 20) / 3, rng.integers(0, 2, 20).astype(float)
        area, recall = 0.0, 0.0
        for threshold in sorted(set(scores), reverse=True):
            taken = scores >= threshold
            now = truths[taken].sum() / max(1, truths.sum())
            area, recall = area + (now - recall) * truths[taken].mean(), now
        assert average_precision(scores, truths) == pytest.approx(area)


def texts(*answers: str) -> Truth:
    return Truth(answers)


def test_f1_is_a_ratio_of_sums_and_has_an_interval() -> None:
    truths = [Truth(answerable=False)] * 30 + [Truth(answerable=True)] * 70
    said = ["unanswerable"] * 20 + ["cat"] * 10 + ["Unanswerable."] * 5 + ["dog"] * 65
    found = intervals({"f1": columns(METRICS["unanswerable_f1"], said, truths)})["f1"]
    precision, recall = 20 / 25, 20 / 30
    assert found.value == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.low < found.value < found.high


def test_what_a_benchmark_does_not_count_is_not_below_the_line() -> None:
    truths = [Truth(("cat",), counted=False), Truth(("cat",))]
    for name in ("direct_answer_accuracy", "gqa_accuracy"):
        assert columns(METRICS[name], ["cat", "cat"], truths)[1].tolist() == [0, 1]
    assert columns(METRICS["vqa_accuracy"], ["x", "x"], [Truth(), Truth(("x",) * 10)])[1].tolist() == [0, 1]
    assert columns(METRICS["multiple_choice"], ["A"], [Truth(("x",))])[1].tolist() == [0]


def plain_squad(text: str) -> str:
    lowered = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", lowered).split())


def test_several_references_are_met_by_the_nearest() -> None:
    for case in cases(500, 3):
        forms = [plain_squad(reference) for reference in case.references]
        said = plain_squad(case.prediction)
        expected = case.prediction in case.references or (bool(said) and said in forms)
        [score], _ = columns(METRICS["exact_match"], [case.prediction], [Truth(case.references)])
        assert score == expected, case


def test_the_best_constant_is_the_best_of_all_that_are_right_somewhere() -> None:
    for name in ("vqa_accuracy", "textvqa_accuracy", "exact_match", "gqa_accuracy"):
        truths = [Truth(case.references) for case in cases(40, 10, seed=11)]
        said, score = best_constant(METRICS[name], truths)
        answers = {answer for truth in truths for answer in truth.answers}
        plain = {answer: constant(name, answer, truths) for answer in answers}
        assert score == pytest.approx(plain[said])
        if name != "vqa_accuracy":  # there a reference's other spellings may be right by an oddity
            assert score == pytest.approx(max(plain.values()))


def constant(name: str, answer: str, truths: Sequence[Truth]) -> float:
    above, below = columns(METRICS[name], [answer] * len(truths), truths)
    return float(above.sum() / below.sum())


def test_majority_and_first_choice_of_choices() -> None:
    truths = [Truth(choices=("x", "y"), correct=correct) for correct in (1, 1, 0)]
    assert best_constant(METRICS["multiple_choice"], truths) == ("B", 2 / 3)
    assert best_constant(METRICS["multiple_choice_text"], truths) == ("y", 2 / 3)
    assert constant("multiple_choice", "A", truths) == pytest.approx(1 / 3)
    assert constant("multiple_choice", "", truths) == 0
    assert math.isnan(best_constant(METRICS["multiple_choice"], [])[1])


def test_the_ceiling_is_the_best_answer_to_each_question() -> None:
    split = Truth(tuple(said_by(("cat", 3), ("dog", 5), ("cow", 2))))
    assert ceiling(METRICS["vqa_accuracy"], [("q", split)]) == 1
    apart = Truth(tuple("abcdefghij"))
    assert ceiling(METRICS["vqa_accuracy"], [("q", split), ("p", apart)]) == pytest.approx((1 + 0.3) / 2)
    twice = [("q", texts("cat")), ("q", texts("dog")), ("q", texts("dog")), ("p", texts("cow"))]
    assert ceiling(METRICS["exact_match"], twice) == 0.75
    assert ceiling(METRICS["multiple_choice"], [("q", Truth(choices=("x",), correct=0))]) == 1
