"""A text -> the words that are indexed and searched, in any script.

Words are runs of letters, digits and the marks that belong to them, in one case and one form (NFKC), without English
stop words. Where no spaces stand between words, overlapping pieces take their place, as in Lucene's CJKBigramFilter:
Chinese characters one by one and in pairs; two and three neighbours in Japanese syllables, in Thai, Lao, Khmer and
Burmese, and in Korean, whose particles cling to the words. Emoji are words of their own.
"""

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache

from bm25s.stopwords import STOPWORDS_EN  # type: ignore[import-untyped]

_STOP_WORDS = frozenset(STOPWORDS_EN)
_CHINESE = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OTHER_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u1100-\u11ff\uac00-\ud7af"  # Korean
    "\u3040-\u30ff\u31f0-\u31ff"  # Japanese syllables
)
_EMOJI = "\u2600-\u27bf\U0001f000-\U0001faff"
_ENGLISH_ENDING = re.compile(r"['\u2019](?:s|t|d|m|ll|re|ve)\b")
_PLAIN_WORD = re.compile(r"[a-z0-9]+")
_PIECE = re.compile(f"([{_CHINESE}]+)|([{_OTHER_UNSPACED}]+)|[^{_CHINESE}{_OTHER_UNSPACED}]+")


def words(text: str) -> list[str]:
    """The words of a text in order, repetitions included; empty where there is nothing to search for."""
    if text.isascii():
        found = _PLAIN_WORD.findall(_ENGLISH_ENDING.sub("", text.lower()))
        return [word for word in found if word not in _STOP_WORDS]
    folded = unicodedata.normalize("NFKC", text).casefold().replace("_", " ")
    runs = _any_word().findall(_ENGLISH_ENDING.sub("", folded))
    return [word for run in runs for word in _split(run) if word not in _STOP_WORDS]


@cache
def _any_word() -> re.Pattern[str]:
    """Emoji, or a letter or digit with what follows it; `\\w` alone would cut Hindi and Thai at their vowel marks."""
    marks = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "M")
    return re.compile(rf"[{_EMOJI}]|\w[\w{marks}]*")


def _split(run: str) -> Iterator[str]:
    if run.isascii():
        yield run
        return
    for piece in _PIECE.finditer(run):
        found = piece.group()
        if piece.group(1):
            yield from found
            yield from _neighbours(found, 2)
        elif piece.group(2) and len(found) > 1:
            yield from _neighbours(found, 2)
            yield from _neighbours(found, 3)
        else:
            yield found


def _neighbours(text: str, size: int) -> Iterator[str]:
    return (text[i : i + size] for i in range(len(text) - size + 1))
