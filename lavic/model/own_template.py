"""A checkpoint's own chat template, where it marks its answers by `{% generation %}`."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from lavic.catalogue.records import IMAGE_TOKEN, Turn
from lavic.errors import UserError
from lavic.model.templates import Segment

_PROBE = (Turn("user", "Which one?", 1), Turn("assistant", "This one."), Turn("user", "Why?"), Turn("assistant", "So."))


class OwnTemplate:
    """A jinja2 template of transformers' form, as a `Template` is.

    Args:
        template: its source.
        owner: the checkpoint that it came with, for messages.
        tokenizer: whose special tokens it writes.

    Raises:
        UserError: it does not mark its answers, does not write what it is given, or writes a prompt that is not how
            the training text begins.
    """

    name = "the checkpoint's own"
    captions_only = False

    def __init__(self, template: str | None, owner: str, tokenizer: Any) -> None:
        if not template or not re.search(r"{%-?\s*generation\s*-?%}", template):
            raise UserError(
                f"'{owner}' has no chat template that marks its answers by {{% generation %}}; choose a template by"
                " name."
            )
        self._template = template
        for self._typed in (True, False):
            if self._is_faithful(tokenizer):
                return
        raise UserError(
            f"The chat template of '{owner}' leaves out an image or a text, or its prompt is not how its training text"
            " begins; choose a template by name."
        )

    def segments(self, turns: Sequence[Turn], system: str | None, tokenizer: Any) -> Iterator[Segment]:
        """As `lavic.model.templates.Writes` says."""
        text, spans = self._render(turns, system, tokenizer)
        at = 0
        for start, stop in spans:
            while start > at and text[start - 1] == " ":
                start -= 1  # the space before an answer is for the model to say, as in `Template.gap`
            yield Segment(text[at:start], False)
            yield Segment(text[start:stop], True)
            at = stop
        yield Segment(text[at:], False)

    def _render(self, turns: Sequence[Turn], system: str | None, tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where its answers stand in it."""
        messages = [] if system is None else [{"role": "system", "content": self._content(Turn("user", system))}]
        messages += [{"role": turn.role, "content": self._content(turn)} for turn in turns]
        rendered, spans = render_jinja_template(
            [messages],
            chat_template=self._template,
            return_assistant_tokens_mask=True,
            add_generation_prompt=turns[-1].role == "user",
            **tokenizer.special_tokens_map,
        )
        return rendered[0], [(int(start), int(stop)) for start, stop in spans[0]]

    def _content(self, turn: Turn) -> Any:
        text = turn.text.strip() if turn.role == "assistant" else turn.written()
        if not self._typed:
            return f"{IMAGE_TOKEN}\n" * turn.images_before + text
        return [{"type": "image"}] * turn.images_before + [{"type": "text", "text": text}]

    def _is_faithful(self, tokenizer: Any) -> bool:
        """Whether it writes every image and text once, and a prompt as the training text begins."""
        try:
            whole, _ = self._render(_PROBE, None, tokenizer)
            prompt, _ = self._render(_PROBE[:-1], None, tokenizer)
            with_system, _ = self._render(_PROBE, "Be brief.", tokenizer)
        except (TemplateError, TypeError, ValueError):
            return False
        return (
            all(whole.count(turn.text) == 1 for turn in _PROBE)
            and whole.count(IMAGE_TOKEN) == 1
            and "'type'" not in whole
            and whole.startswith(prompt)
            and not prompt.endswith(" ")
            and "Be brief." in with_system
        )
