"""LaViC's published prompts, letter by letter (`prompts.json`), and how they become tokens.

Prompt and target are tokenised as one string, as published; a token belongs to the target when its first
character does, which the fast tokenizer's offsets tell. The end-of-sequence token is appended and belongs to the
target, so that generation learns to stop. Text that is too long is shortened where it is long, in the title,
never at the end of the sequence, where the placeholders and the target stand.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

PLACEHOLDERS: tuple[str, ...] = tuple(f"<ItemImageEmb{i}>" for i in range(1, 6))
STEERING = {"<image>", *PLACEHOLDERS}  # even where a tokenizer holds them for words
TEMPLATES: dict[str, Any] = json.loads(files("lavic.model").joinpath("prompts.json").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt and its target as tokens; `input_ids[target_start:]` is the target, with EOS at its end."""

    input_ids: list[int]
    target_start: int


def distillation_prompt(title: str, views: int = 5) -> str:
    """Stage 1's prompt for an item whose image has `views` views (as many placeholders are written)."""
    template: str = TEMPLATES["distillation"]
    template = template.replace("".join(PLACEHOLDERS), "".join(PLACEHOLDERS[:views]))
    return template.replace("{title}", title)


def constant_start(tokenizer: Any) -> list[int]:
    """The token ids that every stage-1 prompt starts with: BOS and the template up to the title.

    The last token before the title is left out, since a tokenizer may merge it with the title's first letters.
    """
    start = str(TEMPLATES["distillation"]).partition("{title}")[0]
    return list(tokenizer(start)["input_ids"])[:-1]


def encode(tokenizer: Any, prompts: Sequence[str], targets: Sequence[str], end: int | None = None) -> list[Encoded]:
    """Tokenises each prompt and its target as one string, with `end` after the target; None is the tokenizer's EOS."""
    if not prompts:
        return []
    texts = [p + t for p, t in zip(prompts, targets, strict=True)]
    backend = tokenizer.backend_tokenizer  # the tokenizer itself would make lists of all offsets, which no one reads
    if backend.truncation is not None or backend.padding is not None:  # whole, whatever the checkpoint's file says
        backend.no_truncation()
        backend.no_padding()
    encodings = backend.encode_batch(texts)
    end = tokenizer.eos_token_id if end is None else end
    return [
        Encoded([*encoding.ids, end], first_token(encoding, len(prompt)))
        for encoding, prompt in zip(encodings, prompts, strict=True)
    ]


def first_token(encoding: Any, place: int) -> int:
    """Of one text's tokens the first whose letters begin at or behind `place`; how many there are if none does."""
    token: int | None = encoding.char_to_token(place)
    if token is not None and encoding.token_to_chars(token)[0] == place:
        return token
    offsets = enumerate(encoding.offsets)  # `place` is inside of a token, or in none
    return next((i for i, (first, last) in offsets if first >= place and last > first), len(encoding))


def encode_distillation(
    tokenizer: Any, titles: Sequence[str], descriptions: Sequence[str], views: Sequence[int], max_length: int
) -> list[Encoded | None]:
    """Stage 1's samples as tokens, none longer than `max_length` tokens.

    A title is shortened as far as it takes. None stands for a sample that is too long without any title.
    """
    special = _special_tokens(tokenizer)  # once: it takes longer than looking for them in a text
    titles = [_without(special, title) for title in titles]
    descriptions = [_without(special, description) for description in descriptions]
    prompts = [distillation_prompt(title, n) for title, n in zip(titles, views, strict=True)]
    encoded: list[Encoded | None] = []
    for i, whole in enumerate(encode(tokenizer, prompts, descriptions)):
        fits = len(whole.input_ids) <= max_length
        encoded.append(whole if fits else _shorten_title(tokenizer, titles[i], descriptions[i], views[i], max_length))
    return encoded


def _shorten_title(tokenizer: Any, title: str, description: str, views: int, max_length: int) -> Encoded | None:
    best: Encoded | None = None
    shortest, longest = 0, len(title)
    while shortest <= longest:  # the largest number of letters that fits, by bisection
        letters = (shortest + longest) // 2
        tried = encode(tokenizer, [distillation_prompt(title[:letters].rstrip(), views)], [description])[0]
        if len(tried.input_ids) <= max_length:
            best, shortest = tried, letters + 1
        else:
            longest = letters - 1
    return best


def without_special_tokens(tokenizer: Any, text: str) -> str:
    """Removes what the tokenizer would read as a special token (`</s>`, `<image>`, a placeholder) from a text."""
    return _without(_special_tokens(tokenizer), text)


def _special_tokens(tokenizer: Any) -> list[str]:
    """What steers a model; words that were only added to a vocabulary, such as `\\n` or `<b>`, are people's own."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special or str(token) in STEERING]


def _without(tokens: Sequence[str], text: str) -> str:
    while any(token in text for token in tokens):  # taking one out may leave another: `<im</s>age>`
        for token in tokens:
            text = text.replace(token, "")
    return text
