"""Which item a generated text names: an ID is whole or it is not that ID (`SKU-1-XL` is not `SKU-1`).

An ID may hold any character. What decides is what stands around it, in three classes:

- letters, digits and combining marks always belong to the ID beside them, and so do `+ # % & @ = :` right after it;
- joiners (hyphens, dots, slashes, underscores, ...) belong to it where another letter or digit follows them without
  a space: `4711.2` is not `4711`, but the dot of "I would take 4711." ends a sentence;
- all else (spaces, quotes, brackets, commas, asterisks, an ellipsis, a long dash) stands between words.

Before an ID, `:` and `=` are a label's ("ID:4711"), unless the candidates' own IDs hold them. In a web address each
part of the path stands for itself. Upper and lower case are different IDs, as two products may differ in that alone.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping, Set

_JOINERS = frozenset("-_./\\~^·‐‑–") | frozenset("+#%&@=:")
_CLINGING = frozenset("+#%&@=:")  # after an ID they are no punctuation of a sentence, save a colon before a space
_LABELS = frozenset(":=")
_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s<>\"'()\[\]]+")
_ADDRESS_MARKS = str.maketrans("/?=&#", "     ")
_PAUSE = re.compile(r"\.{2,}")


def named_item(
    text: str, candidates: Collection[str], catalogue: Collection[str] = (), ended: bool = True
) -> str | None:
    """The first whole ID in a text, of the candidates or the catalogue; of two that begin there, the longer.

    Args:
        text: what a model generated.
        candidates: the IDs that it was to choose from.
        catalogue: every other ID, so that a wrong item is told from none; a set or a mapping is looked up as it is.
        ended: whether the model ended the text itself; an ID that reaches the end of a text cut off by a limit
            may be the beginning of a longer one, and is not taken.
    """
    known = frozenset(candidates)
    others = catalogue if isinstance(catalogue, Set | Mapping) else frozenset(catalogue)
    labels = frozenset() if any(mark in item for item in known for mark in _LABELS) else _LABELS
    plain = _PAUSE.sub(lambda pause: " " * len(pause.group()), text)
    addresses = [match.span() for match in _ADDRESS.finditer(text)]
    parts = _ADDRESS.sub(lambda address: address.group().translate(_ADDRESS_MARKS), plain)
    plain_ends = [end for end in range(1, len(text) + 1) if _may_end(plain, end)]
    part_ends = [end for end in range(1, len(text) + 1) if _may_end(parts, end)] if addresses else plain_ends
    for start in range(len(text)):
        if text[start].isspace() or not _may_begin(parts, start, labels):
            continue
        inside = any(begin < start < end for begin, end in addresses)
        for end in reversed(part_ends if inside else plain_ends):
            if end <= start:
                break
            if (end < len(text) or ended) and ((name := text[start:end]) in known or name in others):
                return name
    return None


def _may_begin(text: str, start: int, labels: frozenset[str]) -> bool:
    """Whether nothing before `start` belongs to the ID that begins there."""
    if not _is_joined(text[start]):
        return True
    place = start - 1
    while place >= 0 and text[place] in _JOINERS and text[place] not in labels:
        place -= 1
    return place < 0 or not _is_word(text[place])


def _may_end(text: str, end: int) -> bool:
    """Whether nothing from `end` on belongs to the ID that ends before it."""
    if not _is_joined(text[end - 1]):
        return True
    place = end
    while place < len(text) and text[place] in _JOINERS:
        place += 1
    if place < len(text) and _is_word(text[place]):
        return False
    return end == len(text) or text[end] not in _CLINGING - {":"}


def _is_joined(character: str) -> bool:
    return _is_word(character) or character in _JOINERS


def _is_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")
