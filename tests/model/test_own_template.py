"""A checkpoint's own chat template writes and learns the same as the template of that name, or is refused."""

from typing import Any

import pytest

from lavic.catalogue.records import Turn
from lavic.demo.toy_tokenizer import train_tokenizer
from lavic.errors import UserError
from lavic.model.chat_text import ChatText
from lavic.model.own_template import OwnTemplate
from lavic.model.templates import TEMPLATES

CONVERSATION = [Turn("user", "What </s>?", 2), Turn("assistant", " A dog. "), Turn("user", "Why?"),
                Turn("assistant", "So {it} is 5.")]  # fmt: skip
HUGGING_FACE = """{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}{% for part in message['content'] %}\
{% if part['type'] == 'text' %}{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] + ' ' }}\
{% endgeneration %}{% else %}{{ part['text'] + ' ' }}{% endif %}{% endif %}{% endfor %}{% endfor %}\
{% if add_generation_prompt %}ASSISTANT:{% endif %}"""
STRINGS_ONLY = """{% for message in messages %}{% if message['role'] == 'assistant' %} {% generation %}\
{{ message['content'] + eos_token }}{% endgeneration %}{% else %}{{ 'Q: ' + message['content'] + ' A:' }}{% endif %}\
{% endfor %}"""


@pytest.fixture(scope="module")
def using() -> Any:
    return train_tokenizer(["A dog, it is so. USER: ASSISTANT:"], 40)


@pytest.mark.parametrize("name", ["vicuna_v1", "chatml", "gemma", "phi_3"])
@pytest.mark.parametrize("turns", [CONVERSATION, CONVERSATION[:3], CONVERSATION[:1]])
def test_it_is_as_the_template_of_that_name(name: str, turns: list[Turn]) -> None:
    tokenizer = train_tokenizer(["A dog, it is so. USER: ASSISTANT:"], 40)
    named_template = TEMPLATES[name]
    tokenizer.add_special_tokens({"eos_token": named_template.end.format(eos=tokenizer.eos_token)})
    own = OwnTemplate(named_template.jinja(), "owner", tokenizer)
    for system in (None, "Be brief."):
        ours, named = (ChatText(tokenizer, t).encode(turns, [2, 1], system) for t in (own, named_template))
        assert ours == named


def test_a_template_for_plain_texts_gets_plain_texts(using: Any) -> None:
    own = OwnTemplate(STRINGS_ONLY, "owner", using)
    segments = list(own.segments(CONVERSATION, None, using))
    assert "".join(s.text for s in segments).startswith("Q: <image>\n<image>\nWhat </s>? A: A dog.</s>Q: Why?")
    assert [s.text for s in segments if s.supervised] == [" A dog.</s>", " So {it} is 5.</s>"]


def test_a_template_that_never_ends_an_answer_is_refused(using: Any) -> None:
    with pytest.raises(UserError, match="would never learn to"):
        ChatText(using, OwnTemplate(HUGGING_FACE, "owner", using))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "generation"),
        ("", "generation"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "generation"),
        ("{% generation %}{{ eos_token }}{% endgeneration %}", "leaves out"),
        (STRINGS_ONLY.replace("' A:'", "' A: '"), "not how its training text"),
        (STRINGS_ONLY + "{% if not add_generation_prompt %}{% else %}ANSWER{% endif %}", "not how its training text"),
        (STRINGS_ONLY + "{{ raise_exception('no') }}", "choose a template by name"),
    ],
)
def test_a_template_that_cannot_be_trusted_is_refused(template: str | None, why: str, using: Any) -> None:
    with pytest.raises(UserError, match=why):
        OwnTemplate(template, "owner", using)
