"""What is trained of several answers, and in which order choices are shown: by the seed and a question's ID alone."""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from lavic.catalogue.questions.question import Truth

Several = Literal["most", "sample", "each"]
SEVERAL: tuple[Several, ...] = ("most", "sample", "each")


def trained_answers(
    answers: Sequence[str], several: Several, seed: int, question: str, epoch: int = 0
) -> list[tuple[str, float]]:
    """The answers that a question is trained with, and what each weighs in the loss; the weights' sum is 1.

    Args:
        answers: the same one as often as people gave it.
        several: `most` takes the answer that most gave, the first of equals; `sample` draws one an epoch, as often as
            people gave it; `each` takes all that differ, each weighed by the share that gave it.
        seed: of the run.
        question: its ID.
        epoch: from 0; of `sample`.
    """
    counts = Counter(answers)
    if not counts:
        return []
    if several == "most":
        return [(counts.most_common(1)[0][0], 1.0)]
    if several == "sample":
        return [(_drawn(seed, question, epoch).choice(list(answers)), 1.0)]
    return [(answer, count / counts.total()) for answer, count in counts.items()]


def shuffled(truth: Truth, seed: int, question: str) -> Truth:
    """The same with its choices in an order drawn by the seed, the right one followed to its new place."""
    order = list(range(len(truth.choices)))
    _drawn(seed, question, -1).shuffle(order)
    correct = None if truth.correct is None else order.index(truth.correct)
    return replace(truth, choices=tuple(truth.choices[place] for place in order), correct=correct)


def _drawn(seed: int, question: str, epoch: int) -> random.Random:
    """Python's hash of a text differs from process to process; this one does not."""
    text = f"{seed}\0{epoch}\0{question}".encode("utf-8", "surrogatepass")
    return random.Random(hashlib.sha256(text).digest())
