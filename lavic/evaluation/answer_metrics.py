"""Every metric of an answer by its name: a prediction and what counts as right -> a question's share of the number.

A share is a numerator and a denominator, as `intervals` and `paired_bootstrap` take them: 1 is below a question that is
counted, 0 below one that is not.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lavic.catalogue.questions.question import Truth
from lavic.evaluation.anls import anls, anls_form
from lavic.evaluation.exact_match import exact_match, normalised, token_f1
from lavic.evaluation.intervals import Floats
from lavic.evaluation.multiple_choice import LETTERS, By, chosen
from lavic.evaluation.relaxed_accuracy import relaxed_accuracy
from lavic.evaluation.unanswerable import UNANSWERABLE, f1_share, says_unanswerable
from lavic.evaluation.vqa_accuracy import (
    direct_answer_accuracy,
    textvqa_accuracy,
    textvqa_form,
    vizwiz_accuracy,
    vqa_accuracy,
    vqa_form,
)

Share = tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """A number of answers.

    Attributes:
        name: as `metrics.json` has it.
        share: of a prediction and its truth.
        right_answers: what a model could say to a question that scores there.
        form: what two predictions have in common that score alike everywhere.
    """

    name: str
    share: Callable[[str, Truth], Share]
    right_answers: Callable[[Truth], Sequence[str]] = lambda truth: truth.answers
    form: Callable[[str], str] = str


def _of_texts(
    name: str,
    score: Callable[[str, Sequence[str]], float],
    form: Callable[[str], str] = str,
    in_own_words: bool = False,
) -> Metric:
    def share(prediction: str, truth: Truth) -> Share:
        is_counted = bool(truth.answers) and (truth.counted or not in_own_words)
        return (score(prediction, truth.answers), 1.0) if is_counted else (0.0, 0.0)

    return Metric(name, share, form=form)


def _of_choices(name: str, by: By) -> Metric:
    def share(prediction: str, truth: Truth) -> Share:
        if truth.correct is None:
            return 0.0, 0.0
        return float(chosen(prediction, truth.choices, by) == truth.correct), 1.0

    def right(truth: Truth) -> Sequence[str]:
        if truth.correct is None:
            return ()
        return (LETTERS[truth.correct],) if by == "letter" else (truth.choices[truth.correct],)

    return Metric(name, share, right)


def _unanswerable_share(prediction: str, truth: Truth) -> Share:
    if truth.answerable is None:
        return 0.0, 0.0
    return f1_share(says_unanswerable(prediction), not truth.answerable)


def _best(score: Callable[[str, str], float]) -> Callable[[str, Sequence[str]], float]:
    return lambda prediction, references: max(float(score(prediction, reference)) for reference in references)


def _squad_form(text: str) -> str:
    return normalised(text) or text


_ALL = (
    _of_texts("exact_match", _best(exact_match), _squad_form),
    _of_texts("exact_match_strict", _best(lambda said, right: exact_match(said, right, "strict"))),
    _of_texts("token_f1", _best(token_f1), _squad_form),
    _of_texts("vqa_accuracy", vqa_accuracy, vqa_form),
    _of_texts("textvqa_accuracy", textvqa_accuracy, textvqa_form),
    _of_texts("vizwiz_accuracy", vizwiz_accuracy),
    _of_texts("direct_answer_accuracy", direct_answer_accuracy, in_own_words=True),
    _of_texts("gqa_accuracy", lambda said, references: float(said in references), in_own_words=True),
    _of_texts("anls", anls, anls_form),
    _of_texts("relaxed_accuracy", relaxed_accuracy, str.lower),
    _of_choices("multiple_choice", "letter"),
    _of_choices("multiple_choice_text", "text"),
    Metric("unanswerable_f1", _unanswerable_share, lambda truth: (UNANSWERABLE,) if truth.answerable is False else ()),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


def columns(metric: Metric, predictions: Iterable[str], truths: Iterable[Truth]) -> tuple[Floats, Floats]:
    """Numerators and denominators by question, each (N,)."""
    shares = [metric.share(said, truth) for said, truth in zip(predictions, truths, strict=True)]
    table = np.array(shares, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def best_constant(metric: Metric, truths: Sequence[Truth]) -> tuple[str, float]:
    """The answer that scores most when given to every question, of those that are right somewhere, and its score.

    An answer is credited where it is a right one; that it is near one (`anls`, 5%) is seen when it is scored.
    """
    credit: defaultdict[str, float] = defaultdict(float)
    spelling: dict[str, str] = {}
    for truth in truths:
        for form, answer in {metric.form(answer): answer for answer in metric.right_answers(truth)}.items():
            spelling.setdefault(form, answer)
            credit[form] += metric.share(answer, truth)[0]
    if not credit:
        return "", float("nan")
    answer = spelling[max(credit, key=credit.__getitem__)]
    above, below = columns(metric, [answer] * len(truths), truths)
    return answer, float(above.sum() / below.sum()) if below.sum() else float("nan")


def ceiling(metric: Metric, asked: Iterable[tuple[Hashable, Truth]]) -> float:
    """The greatest score that one answer a question can reach, of the answers that are right somewhere.

    Args:
        asked: what is asked (the image and the question), and what counts as right; the same question may stand
            there several times, with different answers.
    """
    together: defaultdict[Hashable, list[Truth]] = defaultdict(list)
    for question, truth in asked:
        together[question].append(truth)
    above = below = 0.0
    for truths in together.values():
        answers = dict.fromkeys(answer for truth in truths for answer in metric.right_answers(truth))
        shares = [np.sum([metric.share(answer, truth) for truth in truths], axis=0) for answer in answers or [""]]
        best = max(shares, key=lambda share: (share[0], -share[1]))
        above, below = above + float(best[0]), below + float(best[1])
    return above / below if below else float("nan")
