"""Answers that no one has to give: texts, references and predictions with all that evaluators stumble over."""

import random
from dataclasses import dataclass

WORDS = (
    "red", "Black", "black.", "a", "an", "the", "The dog", "none", "None", "zero", "two", "ten", "10", "0", "yes", "no",
    "dont", "don't", "cant", "couldntve", "couldn'tve", "couldnt've", "hadn'tve", "hadn’tve", "wheres", "weve", "Im",
    "somebody'd", "somebodyd've", "'ows'at", "yall'd've", "let's", "lets", "she's", "dog's", "dogs'", "it's a cat",
    "1,000", "1,000.50", "1, 000", "1,,2", "3.14", ".5", "5.", "$5", "5%", "5 %", "45%%", "1e3", "1_000", "nan", "inf",
    "-1", "+1", "1/2", "10:30", "t-shirt", "t -shirt", "t- shirt", "black/white", "black / white", "(left)", "a.m.",
    "U.S.A.", "...", "." * 40 + "x", "?", "what?", "what ?", "hello, world", "hello ,world", "e@mail.com", "[x]", "{y}",
    "`", '"quoted"', "back\\slash", "under_score", "a<b>c", "x=y+z", "so;so", "wow!", "", " ", "  two  words ", "ta\tb",
    "line\nbreak", "\u00a0nbsp", "café", "cafe\u0301", "Straße", "STRASSE", "İstanbul", "ǅ", "日本", "١٢", "١,٢", "½",
    "😀", "no.", "unanswerable", "Unanswerable.", "unsuitable", "A", "B", "B.", "(b)", "C. text", "The answer is A.",
    "The answer is B", "The answer is B because", "The answer is Blue", "The answer is A. The answer is B.",
    "Answer: C", "the answer is b.",
    "December 25, 2019", "12/25/2019", "pepsi-cola", "coca cola", "stop sign", "nothing at all",
)  # fmt: skip
ENDS = ("", "", "", ".", "?", " ", "\n", "s", "!", ",", " the", "%", "'s", "\t")


@dataclass(frozen=True)
class Case:
    """A question's references, and what is said to it."""

    references: tuple[str, ...]
    prediction: str


def text(rng: random.Random) -> str:
    """A text of one to three odd words with odd ends, in one of three cases."""
    words = (rng.choice(WORDS) + rng.choice(ENDS) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    return rng.choice((str, str, str.lower, str.upper))(rng.choice((" ", " ", "", "-", ",")).join(words))


def cases(count: int, references: int, seed: int = 7) -> list[Case]:
    """Questions with so many references each, of which people agree on some; the prediction is often near to one."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        pool = [text(rng) for _ in range(rng.choice((1, 1, 2, 3, 10)))]
        pool += [rng.choice(pool).strip() + rng.choice(ENDS)] * (rng.random() < 0.5)
        given = tuple(rng.choice(pool) for _ in range(references))
        near = rng.choice(given)
        prediction = rng.choice((near, near, near + rng.choice(ENDS), near.lower(), near[1:], text(rng), ""))
        found.append(Case(given, prediction))
    return found
