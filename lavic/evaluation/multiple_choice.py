"""Which of several choices an answer names: by its letter, as ScienceQA asks, or by its text, as A-OKVQA does.

- `letter`: ScienceQA's evaluator looks for `The answer is B.`, once and only once, in these very letters. It counts a
  letter before any character (`The answer is Blue` is B), and where it finds none it draws a choice by chance. Here
  nothing is drawn: `B`, `(b)`, `B. text`, `Answer: B` and the choice's text are looked for instead, and an answer that
  names no choice is wrong.
- `text`: A-OKVQA's evaluator asks for the choice's very text. Where it is not given, case, punctuation and articles
  are left out of account, and then the letter counts.
"""

import re
from collections.abc import Sequence
from typing import Literal

from lavic.evaluation.exact_match import normalised

By = Literal["letter", "text"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SENTENCE = re.compile(r"The answer is ([A-Z]).")
_LETTER = re.compile(r"(?:answer(?: is)?:? *)?\(?([A-Za-z])(?:\)|[.:,](?!\w)|$)", re.IGNORECASE)


def chosen(prediction: str, choices: Sequence[str], by: By) -> int | None:
    """Which choice a prediction names, from 0; None where it names none.

    Args:
        prediction: what the model said.
        choices: in the order that it was shown.
        by: how it was asked to answer.
    """
    readings = (
        (_by_sentence, _by_letter, _by_text) if by == "letter" else (_by_exact_text, _by_text, _by_sentence, _by_letter)
    )
    found = (read(prediction, choices) for read in readings)
    return next((choice for choice in found if choice is not None), None)


def _by_sentence(prediction: str, choices: Sequence[str]) -> int | None:
    found = _SENTENCE.findall(prediction.strip())
    return _index(found[0], choices) if len(found) == 1 else None


def _by_letter(prediction: str, choices: Sequence[str]) -> int | None:
    found = _LETTER.match(prediction.strip())
    return _index(found.group(1).upper(), choices) if found else None


def _by_exact_text(prediction: str, choices: Sequence[str]) -> int | None:
    return next((number for number, choice in enumerate(choices) if choice == prediction), None)


def _by_text(prediction: str, choices: Sequence[str]) -> int | None:
    """The one choice of this text; of several that differ in case or punctuation alone, the one written so."""
    if (exact := _by_exact_text(prediction, choices)) is not None:
        return exact
    said = normalised(prediction)
    found = [number for number, choice in enumerate(choices) if said and normalised(choice) == said]
    return found[0] if len(found) == 1 else None


def _index(letter: str, choices: Sequence[str]) -> int | None:
    place = LETTERS.index(letter)
    return place if place < len(choices) else None
