"""A checkpoint's own chat template that does not mark its answers: their places are found by rendering up to each."""

from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import TemplateError

from lavic.catalogue.records import IMAGE_TOKEN, Turn
from lavic.errors import UserError
from lavic.model.templates import Segment

_PROBE = (Turn("user", "Which one?", 1), Turn("assistant", "This one."))


class RenderedTemplate:
    """A jinja2 template of transformers' form, as a `Template` is.

    What it writes up to an answer, with its generation prompt, has to be how it begins with that answer. A template
    that drops or changes earlier turns (the thoughts of an earlier answer, say) is refused where it does.

    Args:
        template: its source.
        owner: the checkpoint that it came with, for messages.
        tokenizer: whose special tokens it writes.

    Raises:
        UserError: it does not write what it is given.
    """

    name = "the checkpoint's own"
    captions_only = False

    def __init__(self, template: str, owner: str, tokenizer: Any) -> None:
        self._template, self._owner = template, owner
        for self._typed in (True, False):  # some templates read typed parts alone, some plain strings alone
            try:
                text = self._render(_PROBE, None, tokenizer, asks=False)
            except (TemplateError, TypeError, ValueError):
                continue
            if all(text.count(turn.text) == 1 for turn in _PROBE) and "'type'" not in text:
                self._end = self._end_of(text, tokenizer)
                return
        raise UserError(f"The chat template of '{owner}' does not write the turns that it is given; choose another.")

    def segments(self, turns: Sequence[Turn], system: str | None, tokenizer: Any) -> Iterator[Segment]:
        """As `lavic.model.templates.Writes` says; what follows the last answer's end is left out."""
        text = self._render(turns, system, tokenizer, asks=turns[-1].role == "user")
        if turns[-1].role == "user":
            text = text.rstrip(" ")  # the space before an answer is for the model to say, as in `Template.gap`
        at = 0
        for place, turn in enumerate(turns):
            if turn.role == "user":
                continue
            prompt = self._render(turns[:place], system, tokenizer, asks=True).rstrip(" ")
            answer = turn.text.strip()
            start = text.find(answer, len(prompt)) if text.startswith(prompt) else -1
            gap = text[len(prompt) : start] if start >= 0 else "?"
            if gap.strip():
                raise UserError(
                    f"The chat template of '{self._owner}' writes a conversation otherwise when it goes on; choose a"
                    " template by name."
                )
            yield Segment(text[at : len(prompt)], False)
            at = start + len(answer)
            written = text[at:].lstrip()
            if written.startswith(self._end):
                at = len(text) - len(written) + len(self._end)
            yield Segment(gap + answer + self._end, True)
        if turns[-1].role == "user":
            yield Segment(text[at:], False)

    @staticmethod
    def _end_of(text: str, tokenizer: Any) -> str:
        """The token that a template writes behind an answer; the tokenizer's end of a sequence where it writes none."""
        behind = text.partition(_PROBE[1].text)[2].lstrip()
        special = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        return next((token for token in special if token and behind.startswith(token)), str(tokenizer.eos_token))

    def _render(self, turns: Sequence[Turn], system: str | None, tokenizer: Any, asks: bool) -> str:
        """The text, without a beginning token that the tokenizer writes by itself."""
        messages = [] if system is None else [{"role": "system", "content": self._content(Turn("user", system))}]
        messages += [{"role": turn.role, "content": self._content(turn)} for turn in turns]
        text = str(
            tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=asks
            )
        )
        writes_bos = tokenizer.bos_token_id is not None and tokenizer.bos_token_id in tokenizer("")["input_ids"]
        return text.removeprefix(tokenizer.bos_token) if writes_bos else text

    def _content(self, turn: Turn) -> Any:
        text = turn.text.strip() if turn.role == "assistant" else turn.written()
        if not self._typed:
            return f"{IMAGE_TOKEN}\n" * turn.images_before + text
        return [{"type": "image"}] * turn.images_before + [{"type": "text", "text": text}]
