"""Stage 2's prompt: a conversation and its candidates -> tokens, never too many, never a candidate less.

The published template (`lavic/prompts.json`) and target are tokenised as one string; see `lavic/prompts.py`.
An item without a picture is shown by its ID and title alone: no placeholders, no picture that is not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lavic.errors import UserError
from lavic.prompts import PLACEHOLDERS, TEMPLATES, without_special_tokens


@dataclass(frozen=True, slots=True)
class Shown:
    """A candidate as the prompt shows it, with as many placeholders as its picture has views."""

    id: str
    title: str
    views: int


@dataclass(frozen=True, slots=True)
class EncodedChoice:
    """A prompt, and what may follow it.

    `prompt_ids + answers[i]` are the tokens of the prompt with the i-th answer and EOS. The first `unscored`
    tokens of an answer still begin in the prompt: 0, unless the tokenizer merges the prompt's last letter
    with an ID's first.
    """

    prompt_ids: list[int]
    answers: list[list[int]]
    unscored: int


def recommendation_prompt(conversation: str, candidates: Sequence[Shown]) -> str:
    """The published prompt, letter by letter."""
    template: dict[str, str] = TEMPLATES["recommendation"]
    head = template["head"].replace("{conversation}", conversation)
    return head + "".join(map(_candidate_lines, candidates)) + template["tail"]


def _candidate_lines(shown: Shown) -> str:
    template: str = TEMPLATES["recommendation"]["candidate"]
    picture = "".join(PLACEHOLDERS[: shown.views]) + "\n" if shown.views else ""
    lines = template.replace("".join(PLACEHOLDERS) + "\n", picture)
    return lines.replace("{asin}", shown.id).replace("{title}", shown.title)


def encode_choice(
    tokenizer: Any, conversation: str, candidates: Sequence[Shown], answers: Sequence[str], max_length: int
) -> EncodedChoice:
    """The prompt as tokens, followed by each of `answers` (item IDs).

    No sequence gets longer than `max_length` tokens: the conversation loses its oldest part, and when it has
    none left the titles are cut to the greatest common length that fits.

    Raises:
        UserError: even without conversation and titles the candidates need more than `max_length` tokens.
    """
    conversation = without_special_tokens(tokenizer, conversation)
    shown = [replace(c, title=without_special_tokens(tokenizer, c.title)) for c in candidates]
    conversation, shown = _fit(tokenizer, conversation, shown, answers, max_length)
    return _encode(tokenizer, recommendation_prompt(conversation, shown), answers)


def _encode(tokenizer: Any, prompt: str, answers: Sequence[str]) -> EncodedChoice:
    # A placeholder is split off before the text around it is tokenised, so what follows the last one has the
    # same tokens alone: only that is tokenised again for each answer.
    cut = max(prompt.rfind(placeholder) for placeholder in PLACEHOLDERS)
    tail = prompt[max(cut, 0) :]
    endings_text = [tail + answer for answer in answers]
    encoded = tokenizer(endings_text, add_special_tokens=cut < 0, return_offsets_mapping=True)
    endings, targets = [], []
    for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        endings.append([*ids, tokenizer.eos_token_id])
        targets.append(next((i for i, (a, b) in enumerate(offsets) if a >= len(tail) and b > a), len(ids)))
    shared = min(targets)
    while any(ending[:shared] != endings[0][:shared] for ending in endings):
        shared -= 1
    before = [] if cut < 0 else tokenizer(prompt[:cut])["input_ids"]
    return EncodedChoice(
        [*before, *endings[0][:shared]], [ending[shared:] for ending in endings], min(targets) - shared
    )


def _fit(
    tokenizer: Any, conversation: str, candidates: list[Shown], answers: Sequence[str], max_length: int
) -> tuple[str, list[Shown]]:
    excess = _excess(tokenizer, conversation, candidates, answers, max_length)
    while excess > 0 and conversation:
        tokens = tokenizer(conversation, add_special_tokens=False, return_offsets_mapping=True)
        starts = [start for start, _ in tokens["offset_mapping"] if start > 0]
        conversation = conversation[starts[excess - 1] :] if excess <= len(starts) else ""
        half_word = conversation and not conversation[0].isspace()
        conversation = (conversation.partition(" ")[2] if half_word else conversation).lstrip()
        excess = _excess(tokenizer, conversation, candidates, answers, max_length)
    if excess <= 0:
        return conversation, candidates

    def cut_to(letters: int) -> list[Shown]:
        return [replace(shown, title=shown.title[:letters].rstrip()) for shown in candidates]

    fits, too_long = -1, max(len(shown.title) for shown in candidates)
    while too_long - fits > 1:  # bisection; the titles as they are do not fit
        letters = (fits + too_long) // 2
        if _excess(tokenizer, "", cut_to(letters), answers, max_length) > 0:
            too_long = letters
        else:
            fits = letters
    if fits < 0:
        least = max_length + _excess(tokenizer, "", cut_to(0), answers, max_length)
        raise UserError(
            f"max_length is {max_length}, but {len(candidates)} candidates need {least} tokens even without "
            f"conversation and titles; set max_length to {least} at least, better to some hundred more."
        )
    return "", cut_to(fits)


def _excess(
    tokenizer: Any, conversation: str, candidates: list[Shown], answers: Sequence[str], max_length: int
) -> int:
    choice = _encode(tokenizer, recommendation_prompt(conversation, candidates), answers)
    return len(choice.prompt_ids) + max(map(len, choice.answers)) - max_length
