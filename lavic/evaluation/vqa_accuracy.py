"""VQA accuracy: an answer is right as far as three of nine people gave it, averaged over all nines of ten.

The measure is of Antol et al. (2015). The benchmarks' evaluators differ in what they make of the texts first, and each
is followed to the letter:

- `vqa`, of VQAv2 and OK-VQA (vqaEval.py): numbers up to ten as digits, articles dropped, contractions, punctuation. It
  leaves prediction and references as they are where all references are the same text: `Black.` is wrong where ten
  people said `black`, and right where nine did.
- `textvqa` (EvalAIAnswerProcessor, which EvalAI uses for VQAv2 too): the same always, commas and question marks dropped
  and `'s` cut off before.
- `vizwiz`: the same for the prediction alone; references are compared as published.

What is odd in all of them: `none` is the number 0; an answer of articles alone (`a`) becomes empty, and equals every
such answer; where a comma stands between two digits, all punctuation is dropped, else what has no space beside it
becomes one; of dots that no digit follows, the first 32 are dropped.
"""

import re
from collections.abc import Mapping, Sequence

from lavic.evaluation import contractions

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_DOT = re.compile(r"\.(?!\d)")
_DOTS = 32  # the evaluators pass re.UNICODE, which is 32, where `sub` expects how many to replace

AGREED = "all references agree, so nothing is normalised"
NONE = "'none' is read as 0"
EMPTY = "an answer of articles or punctuation alone is empty"
COMMA = "a comma between digits drops all punctuation"


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """The accuracy of VQAv2 and OK-VQA, in 0..1."""
    said, given = _flat(prediction), [_flat(reference) for reference in references]
    if len(set(given)) > 1:
        said, given = _processed(said), [_processed(reference) for reference in given]
    return _leave_one_out(given.count(said), len(given))


def textvqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """TextVQA's accuracy, in 0..1."""
    given = [textvqa_form(reference) for reference in references]
    return _leave_one_out(given.count(textvqa_form(prediction)), len(given))


def vizwiz_accuracy(prediction: str, references: Sequence[str]) -> float:
    """VizWiz's accuracy, in 0..1."""
    return _leave_one_out(list(references).count(vizwiz_form(prediction)), len(references))


def direct_answer_accuracy(prediction: str, references: Sequence[str]) -> float:
    """A-OKVQA's accuracy of direct answers, in 0..1: a third for each reference that is the same text, at most 1."""
    return min(1.0, list(references).count(prediction) / 3)


def vqa_form(text: str) -> str:
    """What VQAv2's evaluator makes of a text where the references differ."""
    return _processed(_flat(text))


def textvqa_form(text: str) -> str:
    """What TextVQA's evaluator makes of a text."""
    return _processed(_flat(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()))


def vizwiz_form(text: str) -> str:
    """What VizWiz's evaluator makes of a prediction."""
    return _processed(_flat(text), contractions.VIZWIZ)


def quirks(prediction: str, references: Sequence[str]) -> tuple[str, ...]:
    """Which of `vqa_accuracy`'s oddities touch a question: those that change its score, or may."""
    texts = [_flat(text) for text in (prediction, *references)]
    found = []
    if len(set(texts[1:])) == 1:
        agreed = _leave_one_out([vqa_form(text) for text in references].count(vqa_form(prediction)), len(references))
        return (AGREED,) if agreed != vqa_accuracy(prediction, references) else ()
    if any("none" in text.lower().split() for text in texts):
        found.append(NONE)
    if any(text and not _processed(text) for text in texts):
        found.append(EMPTY)
    if any(_COMMA_IN_NUMBER.search(text) for text in texts):
        found.append(COMMA)
    return tuple(found)


def _leave_one_out(matching: int, given: int) -> float:
    """The mean over the sets that lack one reference each: those that match have one less to match with."""
    if not given:
        return 0.0
    own = matching * min(1.0, (matching - 1) / 3)
    return (own + (given - matching) * min(1.0, matching / 3)) / given


def _flat(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _processed(text: str, spellings: Mapping[str, str] = contractions.VQA) -> str:
    words = (_DIGITS.get(word, word) for word in _without_punctuation(text).lower().split())
    return " ".join(spellings.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    has_number = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        drop = has_number or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if drop else " ")
    return _DOT.sub("", result, count=_DOTS)
