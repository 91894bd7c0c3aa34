"""Whether a model knows that an image does not answer a question: VizWiz's F1 and average precision.

As its evaluator computes them, by scikit-learn's definitions, with the unanswerable questions as what is to be found.
"""

import numpy as np

from lavic.evaluation.intervals import Floats
from lavic.evaluation.vqa_accuracy import vizwiz_form

UNANSWERABLE = "unanswerable"


def says_unanswerable(prediction: str) -> bool:
    """Whether an answer says that there is none."""
    return vizwiz_form(prediction) == UNANSWERABLE


def f1_share(says: bool, is_unanswerable: bool) -> tuple[float, float]:
    """A question's share of F1 = 2 TP / (2 TP + FP + FN): of what stands above, and of what stands below."""
    return 2.0 * (says and is_unanswerable), float(says) + float(is_unanswerable)


def average_precision(scores: Floats, is_unanswerable: Floats) -> float:
    """The precision at each score, weighted by the recall that it adds; 0 where nothing is unanswerable.

    Args:
        scores: (N,), greater the surer that a question is unanswerable; answers in words give 0 or 1.
        is_unanswerable: (N,), 0 or 1.
    """
    positives = is_unanswerable.sum()
    if not positives:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # rows of one score come together
    hits = np.cumsum(is_unanswerable[order])[ends]
    precision, recall = hits / (ends + 1), hits / positives
    return float((np.diff(recall, prepend=0.0) * precision).sum())
