"""ANLS: how near a text read from a document is to the best reference, 0 below one half (Biten et al., 2019).

As the Robust Reading Competition's script computes it for DocVQA and InfographicVQA. It compares texts in lower case
with single spaces, but divides by the length of the longer text as written, in upper case.
"""

from collections.abc import Sequence

THRESHOLD = 0.5


def anls(prediction: str, references: Sequence[str]) -> float:
    """The normalised Levenshtein similarity to the nearest reference, in 0..1; 0 where it is below `THRESHOLD`."""
    similarity = 1 - min((_distance(prediction, reference) for reference in references), default=1.0)
    return similarity if similarity >= THRESHOLD else 0.0


def anls_form(text: str) -> str:
    """What is compared of a text."""
    return " ".join(text.lower().split())


def levenshtein(first: str, second: str) -> int:
    """How many letters must be inserted, deleted or replaced to make one text of the other."""
    row = list(range(len(first) + 1))
    for number, letter in enumerate(second, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(first, 1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (letter != other))
    return row[-1]


def _distance(prediction: str, reference: str) -> float:
    """The share of letters that differ; 1 where more than `THRESHOLD` of them must, which comes to the same."""
    length = max(len(prediction.upper()), len(reference.upper()))
    said, right = anls_form(prediction), anls_form(reference)
    if not length:
        return 0.0
    if abs(len(said) - len(right)) > THRESHOLD * length:
        return 1.0
    return levenshtein(said, right) / length
