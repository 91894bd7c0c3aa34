"""Exact match of short answers: SQuAD v1.1's normalisation and letter by letter, with what bounds them.

- `squad`: both texts in lower case, without ASCII punctuation, then without the words a, an, the, then with single
  spaces: the official order (Rajpurkar et al. 2016, evaluate-v1.1.py). A prediction of which nothing is left is right
  only where it is the answer letter by letter: else silence would be a right answer to "the".
- `strict`: the same letters. Decoding strips a prediction's ends; nothing else is changed.
- `token_f1`: the official F1 over normalised words; where either side has none left, it is the exact match.
"""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Literal

Mode = Literal["squad", "strict"]
MODES: tuple[Mode, ...] = ("squad", "strict")

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """SQuAD's form of a text."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, truth: str, mode: Mode = "squad") -> bool:
    """Whether the prediction is the answer."""
    if prediction == truth or mode == "strict":
        return prediction == truth
    return bool(said := normalised(prediction)) and said == normalised(truth)


def token_f1(prediction: str, truth: str) -> float:
    """Harmonic mean of precision and recall over normalised words, each as often as it occurs; in 0..1."""
    said, right = normalised(prediction).split(), normalised(truth).split()
    if not said or not right:
        return float(exact_match(prediction, truth))
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right))


def ceiling(questions: Iterable[tuple[Hashable, str]], mode: Mode = "squad") -> float:
    """The greatest exact match that one answer a question can reach.

    Args:
        questions: what is asked (the image and the question), and its answer; the same question may have been given
            different answers, of which only one can be matched.
    """
    answers: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for question, truth in questions:
        answers[question][_form(mode)(truth)] += 1
    total = sum(sum(several.values()) for several in answers.values())
    return sum(max(several.values()) for several in answers.values()) / total if total else float("nan")


def majority(truths: Iterable[str], mode: Mode = "squad") -> tuple[str, float]:
    """The answer that is right most often when given to every question, and how often that is.

    The first of equals; the answers' own majority, so that no constant answer does better on them.
    """
    spellings: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for truth in truths:
        form = _form(mode)(truth)
        spellings.setdefault(form, truth)
        counts[form] += 1
    if not counts:
        return "", float("nan")
    form, count = counts.most_common(1)[0]
    return spellings[form], count / counts.total()


def _form(mode: Mode) -> Callable[[str], str]:
    """What answers have in common that one prediction can match.

    Answers of which nothing is left after normalisation are matched by their own letters alone.
    """
    return (lambda text: normalised(text) or text) if mode == "squad" else str
