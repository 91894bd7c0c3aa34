"""Conversations as tokens: what is learned and what is only read, the same text in training and in generation.

The whole text is tokenised once; its characters' offsets say which tokens are learned: those whose first character
lies in an answer or its end. What people wrote stays text, even where it spells a control token.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

from transformers import GenerationConfig

from lavic.catalogue.records import IMAGE_TOKEN, Turn
from lavic.errors import UserError
from lavic.files.hub import local_folder
from lavic.model.own_template import OwnTemplate
from lavic.model.templates import TEMPLATES, Writes

_PROBE = (Turn("user", "What is it?"), Turn("assistant", "A dog."), Turn("user", "Why?"), Turn("assistant", "So."))
BLOCK = 1024  # texts tokenised at a time
PRIVATE = range(0xE000, 0xF900)  # code points that no text means anything by


@dataclass(frozen=True, slots=True)
class EncodedRecord:
    """A conversation as tokens.

    Attributes:
        input_ids: with as many image tokens for each image as it has visual tokens.
        spans: (start, stop) of the runs of supervised tokens.
        dropped: pairs of question and answer that were left out, the oldest, because of its length.
        shortened: whether the last question's text was cut because of its length.
    """

    input_ids: list[int]
    spans: list[tuple[int, int]]
    dropped: int = 0
    shortened: bool = False


class ChatText:
    """Encodes conversations with one template and one tokenizer.

    Args:
        tokenizer: a fast one, which knows the image token as one token.
        template: how a conversation is written.
        eos_ids: the tokens at which generation stops; None is the tokenizer's end of a sequence.

    Raises:
        UserError: an answer written so does not end with one of `eos_ids` (except `plain`'s captions, by design), so
            that a model that learns it would never stop.
    """

    def __init__(self, tokenizer: Any, template: Writes, eos_ids: Collection[int] | None = None) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.eos_ids = {tokenizer.eos_token_id} if eos_ids is None else set(eos_ids)
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        bare = tokenizer("")["input_ids"]
        self._bos = [tokenizer.bos_token_id] if tokenizer.bos_token_id in bare else []
        control = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} | {IMAGE_TOKEN}
        longest_first = sorted((token for token in control if len(token) > 1), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)))
        self._check_ends()

    def encode(
        self,
        turns: Sequence[Turn],
        image_counts: Sequence[int] = (),
        system: str | None = None,
        max_length: int | None = None,
    ) -> EncodedRecord | str:
        """A conversation as tokens, at most `max_length`; or why it cannot be used.

        One that is too long loses its oldest pairs, whose images go to the first question that stays; if the last
        pair alone is too long, its question's text is cut. Images and answers are never cut. A conversation that ends
        with a question gives the prompt for its answer.

        Args:
            turns: question, answer, question, ...
            image_counts: visual tokens of each image, in the order of the turns.
            system: the system text; None is the template's own.
            max_length: tokens.
        """
        if self.template.captions_only and (len(turns) > 2 or not image_counts):
            return f"the template {self.template.name} takes one image text: one question and answer, with an image"
        learns = turns[-1].role == "assistant"
        for dropped in range(0, (len(turns) + 1) // 2):
            kept = _without_oldest(turns, dropped)
            encoded = replace(self._tokens(kept, image_counts, system), dropped=dropped)
            if max_length is None or len(encoded.input_ids) <= max_length:
                return encoded if encoded.spans or not learns else "nothing to learn"
        assert max_length is not None
        shorter = None if self.template.captions_only else self._shorten(kept, image_counts, system, max_length)
        if shorter is None:
            return "too long for max_length"
        return replace(shorter, dropped=dropped, shortened=True)

    def answer_lengths(self, answers: Sequence[str]) -> list[int]:
        """Returns how many tokens are learned of each answer after a short question, its end among them.

        Many are tokenised at a time, each as one text with its question.
        """
        probe = [*self.template.segments(_PROBE[:2], None, self.tokenizer)]
        place = next(number for number, segment in enumerate(probe) if segment.supervised)
        question = "".join(segment.text for segment in probe[:place])
        gap, _, end = probe[place].text.partition(_PROBE[1].text)
        breaker = _unused_character(answers)
        counts: list[int] = []
        for begin in range(0, len(answers), BLOCK):
            said = [gap + self._broken(answer.strip(), breaker) + end for answer in answers[begin : begin + BLOCK]]
            texts = [question + text for text in said]
            tokens = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
            for text, offsets in zip(texts, tokens["offset_mapping"], strict=True):
                counts.append(sum(len(question) <= at < stop and text[at:stop] != breaker for at, stop in offsets))
        return counts

    def _shorten(
        self, pair: Sequence[Turn], image_counts: Sequence[int], system: str | None, max_length: int
    ) -> EncodedRecord | None:
        """The pair with as much of its question's text as fits, by bisection."""
        best = None
        shortest, longest = 0, len(pair[0].text) - 1
        while shortest <= longest:
            letters = (shortest + longest) // 2
            question = replace(pair[0], text=pair[0].text[:letters].rstrip())
            tried = self._tokens((question, *pair[1:]), image_counts, system)
            if len(tried.input_ids) <= max_length:
                best, shortest = tried, letters + 1
            else:
                longest = letters - 1
        return best

    def _tokens(self, turns: Sequence[Turn], image_counts: Sequence[int], system: str | None) -> EncodedRecord:
        """One tokenisation of the whole text."""
        breaker = _unused_character([turn.text for turn in turns] + [system or ""])
        turns = [self._broken_turn(turn, breaker) for turn in turns]
        system = None if system is None else self._broken(system, breaker)
        segments = list(self.template.segments(turns, system, self.tokenizer))
        text = "".join(segment.text for segment in segments)
        learned = bytearray()  # of every character
        for segment in segments:
            learned += bytes([segment.supervised]) * len(segment.text)
        tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = []
        supervised: list[bool] = []
        counts = iter(image_counts)
        for token, (first, stop) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True):
            if text[first:stop] == breaker:
                continue
            repeated = next(counts) if token == self.image_token_id else 1
            ids += [token] * repeated
            supervised += [stop > first and bool(learned[first])] * repeated
        if next(counts, None) is not None:
            raise ValueError(f"{len(image_counts)} images are given, and fewer stand in the turns")
        bos = self._bos if ids[:1] != self._bos else []
        return EncodedRecord([*bos, *ids], _runs([False] * len(bos) + supervised))

    def _broken(self, text: str, breaker: str) -> str:
        """`text` with a character, dropped again from the tokens, within whatever spells a control token."""
        return self._control.sub(lambda found: found[0][0] + breaker + found[0][1:], text)

    def _broken_turn(self, turn: Turn, breaker: str) -> Turn:
        place = turn.place or 0
        head, tail = self._broken(turn.text[:place], breaker), self._broken(turn.text[place:], breaker)
        return replace(turn, text=head + tail, place=None if turn.place is None else len(head))

    def _check_ends(self) -> None:
        if self.template.captions_only:
            return
        encoded = self._tokens(_PROBE, (), None)
        ends = [encoded.input_ids[stop - 1] for _, stop in encoded.spans]
        if len(ends) != 2 or not self.eos_ids.issuperset(ends):
            stops = ", ".join(str(self.tokenizer.convert_ids_to_tokens(token)) for token in sorted(self.eos_ids))
            raise UserError(
                f"With the template '{self.template.name}' an answer does not end with a token at which the model stops"
                f" ({stops}), so it would never learn to; choose another of {', '.join(TEMPLATES)}."
            )


def _without_oldest(turns: Sequence[Turn], pairs: int) -> Sequence[Turn]:
    """The turns behind the oldest `pairs`, the first of them with their images too."""
    if not pairs:
        return turns
    first, *later = turns[2 * pairs :]
    return [replace(first, images=sum(turn.images for turn in turns[: 2 * pairs + 1])), *later]


def _unused_character(texts: Sequence[str]) -> str:
    return next(chr(point) for point in PRIVATE if not any(chr(point) in text for text in texts))


def _runs(supervised: Sequence[bool]) -> list[tuple[int, int]]:
    """(start, stop) of the runs of true values."""
    lengths = [(value, len(list(run))) for value, run in groupby(supervised)]
    stops = accumulate(length for _, length in lengths)
    return [(stop - length, stop) for (value, length), stop in zip(lengths, stops, strict=True) if value]


def stop_ids(name: str, tokenizer: Any) -> set[int]:
    """The tokens at which a checkpoint stops generating: its generation configuration's, or else the tokenizer's.

    Raises:
        UserError: the configuration cannot be read, or names a token that is not there.
    """
    folder = local_folder(name)
    try:
        stops = GenerationConfig.from_pretrained(name).eos_token_id
    except OSError as error:
        if folder is not None and (folder / "generation_config.json").is_file():
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"The generation_config.json of '{name}' cannot be read ({reason}); mend it.") from None
        stops = None
    stops = [tokenizer.eos_token_id] if stops is None else stops
    found = set(stops) if isinstance(stops, list) else {int(stops)}
    if unknown := sorted(stop for stop in found if not 0 <= stop < len(tokenizer)):
        raise UserError(
            f"The generation_config.json of '{name}' ends answers with token {unknown[0]}, and its tokenizer has"
            f" {len(tokenizer)}; mend its eos_token_id."
        )
    return found


def choose_template(name: str, owner: str, processor: Any) -> Writes:
    """The template of a name; `own` is the checkpoint's. Raises UserError if there is none."""
    if name == "own":
        own = processor.chat_template or processor.tokenizer.chat_template
        return OwnTemplate(own, owner, processor.tokenizer)
    if name not in TEMPLATES:
        raise UserError(f"There is no template '{name}'; give one of own, {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]
