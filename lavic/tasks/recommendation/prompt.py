"""Stage 2's prompt: a conversation and its candidates -> tokens, never too many, never a candidate less.

The published template (`lavic/model/prompts.json`) and target are tokenised as one string; see `lavic/model/text.py`.
An item without an image is shown by its ID and title alone: no placeholders, no image that is not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lavic.errors import UserError
from lavic.model.text import PLACEHOLDERS, TEMPLATES, first_token, without_special_tokens


@dataclass(frozen=True, slots=True)
class Shown:
    """A candidate as the prompt shows it, with as many placeholders as its image has views."""

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
    image = "".join(PLACEHOLDERS[: shown.views]) + "\n" if shown.views else ""
    lines = template.replace("".join(PLACEHOLDERS) + "\n", image)
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
    choice = _encode(tokenizer, recommendation_prompt(conversation, shown), answers)
    while (excess := _length(choice) - max_length) > 0 and conversation:
        conversation = _without_oldest(tokenizer, conversation, excess)
        choice = _encode(tokenizer, recommendation_prompt(conversation, shown), answers)
    return choice if excess <= 0 else _with_shorter_titles(tokenizer, shown, answers, max_length)


def _encode(tokenizer: Any, prompt: str, answers: Sequence[str]) -> EncodedChoice:
    # A placeholder is split off before the text around it is tokenised, so what follows the last one has the
    # same tokens alone: only that is tokenised again for each answer.
    cut = max(prompt.rfind(placeholder) for placeholder in PLACEHOLDERS)
    tail = prompt[max(cut, 0) :]
    endings_text = [tail + answer for answer in answers]
    encodings = tokenizer(endings_text, add_special_tokens=cut < 0).encodings
    endings = [[*encoding.ids, tokenizer.eos_token_id] for encoding in encodings]
    targets = [first_token(encoding, len(tail)) for encoding in encodings]
    shared = min(targets)
    while any(ending[:shared] != endings[0][:shared] for ending in endings):
        shared -= 1
    before = [] if cut < 0 else tokenizer(prompt[:cut])["input_ids"]
    return EncodedChoice(
        [*before, *endings[0][:shared]], [ending[shared:] for ending in endings], min(targets) - shared
    )


def _length(choice: EncodedChoice) -> int:
    return len(choice.prompt_ids) + max(map(len, choice.answers))


def _without_oldest(tokenizer: Any, conversation: str, tokens: int) -> str:
    """What is left without the first `tokens` tokens and what they leave of a word."""
    encoded = tokenizer(conversation, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in encoded["offset_mapping"] if start > 0]
    rest = conversation[starts[tokens - 1] :] if tokens <= len(starts) else ""
    begins_within_a_word = rest and not rest[0].isspace()
    return (rest.partition(" ")[2] if begins_within_a_word else rest).lstrip()


def _with_shorter_titles(
    tokenizer: Any, candidates: list[Shown], answers: Sequence[str], max_length: int
) -> EncodedChoice:
    """The prompt without a conversation, every title cut to the greatest common length that fits."""

    def cut_to(letters: int) -> EncodedChoice:
        shown = [replace(c, title=c.title[:letters].rstrip()) for c in candidates]
        return _encode(tokenizer, recommendation_prompt("", shown), answers)

    best = cut_to(0)
    if (least := _length(best)) > max_length:
        raise UserError(
            f"max_length is {max_length}, but {len(candidates)} candidates need {least} tokens even without "
            f"conversation and titles; set max_length to {least} at least, better to some hundred more."
        )
    fits, too_long = 0, max(len(c.title) for c in candidates)
    while too_long - fits > 1:  # bisection; the titles as they are do not fit
        letters = (fits + too_long) // 2
        choice = cut_to(letters)
        if _length(choice) > max_length:
            too_long = letters
        else:
            best, fits = choice, letters
    return best
