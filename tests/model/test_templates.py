"""A template in jinja2, rendered by transformers, writes what the template does and marks what it teaches."""

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from lavic.catalogue.records import Turn
from lavic.model.templates import TEMPLATES


class Tokenizer:
    bos_token, eos_token = "<s>", "</s>"


TURNS = (
    Turn("user", "What are these? {eos} \"'", 2), Turn("assistant", " Two dogs.\n"), Turn("user", "  Why?"),
    Turn("assistant", "So {they} are."), Turn("user", "Hm?"),
)  # fmt: skip


def messages(turns: tuple[Turn, ...], system: str | None) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    for turn in turns:
        parts = [*({"type": "image"} for _ in range(turn.images)), {"type": "text", "text": turn.text}]
        said.append({"role": turn.role, "content": parts if turn.images else turn.text})
    return said


@pytest.mark.parametrize("name", [name for name, template in TEMPLATES.items() if not template.captions_only])
@pytest.mark.parametrize("system", [None, "", "Be brief."])
@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_the_jinja_writes_the_same(name: str, system: str | None, count: int) -> None:
    segments = list(TEMPLATES[name].segments(TURNS[:count], system, Tokenizer()))
    [text], [spans] = render_jinja_template(
        conversations=[messages(TURNS[:count], system)], chat_template=TEMPLATES[name].jinja(),
        return_assistant_tokens_mask=True, bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    assert text == "".join(segment.text for segment in segments)
    assert [text[start:stop] for start, stop in spans] == [s.text for s in segments if s.supervised]
