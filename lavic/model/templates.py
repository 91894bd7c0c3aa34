"""How a conversation is written for a language model, and which of it the model is to say itself.

One function writes it, for training and for generation: a prompt is the training text up to where an answer begins.
The texts are those of LLaVA's conversations (`vicuna_v1`, `plain`, `llava_llama_2`) and those that the control tokens
of language models were made for; a checkpoint that marks its answers by `{% generation %}` can bring its own
(`lavic/model/own_template.py`).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from lavic.catalogue.records import IMAGE_TOKEN, Turn
from lavic.errors import UserError

_CURIOUS = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_HELPFUL = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


class Segment(NamedTuple):
    """A stretch of a conversation's text, and whether the model learns to say it."""

    text: str
    supervised: bool


class Writes(Protocol):
    """What writes conversations."""

    @property
    def name(self) -> str:
        """As options call it."""

    @property
    def captions_only(self) -> bool:
        """Whether only an image and its caption are written; the question is thrown away."""

    def segments(self, turns: Sequence[Turn], system: str | None, tokenizer: Any) -> Iterator[Segment]:
        """A conversation's text in stretches; one that ends with a question ends where its answer would begin.

        Args:
            turns: question, answer, question, ...
            system: the system text; None is the template's own.
            tokenizer: whose beginning and end of a sequence are written.
        """


@dataclass(frozen=True)
class Template:
    """A way to write a conversation, in pieces that hold `{bos}`, `{eos}`, `{system}`, `{images}` and `{text}`.

    Attributes:
        name: as options call it.
        question: everything from the end of an answer to where the next begins, without the space before it.
        end: what follows an answer and is learned with it.
        gap: the space before an answer. Generation stops before it, so the model learns it with the answer.
        after: what follows an answer's end and is not learned.
        between: what precedes every question but the first.
        opening: how a system text is written, before the first question's text.
        system: the system text of a conversation that has none.
        captions_only: only an image and its caption are written; the question is thrown away.
    """

    name: str
    question: str
    end: str = "{eos}"
    gap: str = ""
    after: str = ""
    between: str = ""
    opening: str = ""
    system: str = ""
    captions_only: bool = False

    def segments(self, turns: Sequence[Turn], system: str | None, tokenizer: Any) -> Iterator[Segment]:
        """As `Writes` says."""
        tokens = {"bos": tokenizer.bos_token or "", "eos": tokenizer.eos_token or ""}
        said = self.system if system is None else system
        opening = self.opening.format(system=said) if said else ""
        for place, turn in enumerate(turns):
            if turn.role == "user":
                before = self.between.format(**tokens) if place else ""
                images = IMAGE_TOKEN * turn.images if self.captions_only else f"{IMAGE_TOKEN}\n" * turn.images_before
                written = self.question.format(system="" if place else opening, images=images, text=turn.written())
                yield Segment(before + written, False)
            else:
                yield Segment(self.gap + turn.text.strip() + self.end.format(**tokens), True)
                yield Segment(self.after, False)

    def jinja(self) -> str:
        """The same for `apply_chat_template`, which whoever serves the model uses; an answer is marked as generated."""
        tokens = {"bos": "bos_token", "eos": "eos_token"}
        asked = {"system": "(opening if loop.first else '')", "images": "images(message)", "text": "text(message)"}
        end, between = _expression(self.end, tokens), _expression(self.between, tokens)
        return f"""{_CONTENT}
{{%- set said = text(messages[0]) if messages[0]['role'] == 'system' else {json.dumps(self.system)} -%}}
{{%- set opening = {_expression(self.opening, {"system": "said"})} if said else '' -%}}
{{%- for message in messages if message['role'] != 'system' -%}}
{{%- if message['role'] == 'assistant' -%}}
{{% generation %}}{{{{ {json.dumps(self.gap)} ~ (text(message) | trim) ~ {end} }}}}{{% endgeneration %}}
{{{{- {json.dumps(self.after)} }}}}
{{%- else -%}}
{{{{ ('' if loop.first else {between}) ~ {_expression(self.question, asked)} }}}}
{{%- endif -%}}
{{%- endfor -%}}"""


_CONTENT = """{%- macro images(message) -%}
{%- for part in message['content'] if message['content'] is not string and part['type'] == 'image' -%}
{{ '<image>\\n' }}
{%- endfor -%}
{%- endmacro -%}
{%- macro text(message) -%}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}"""


def _expression(piece: str, names: Mapping[str, str]) -> str:
    """A piece of a template as an expression of jinja2, its placeholders by these names."""
    parts = [part for part in re.split(r"(\{\w+\})", piece) if part]
    found = [names[part[1:-1]] if part[0] == "{" and part[-1] == "}" else json.dumps(part) for part in parts]
    return " ~ ".join(found) or "''"


def _blocks(name: str, start: str, middle: str, end: str, after: str, system: str = "") -> Template:
    """A template in which every turn is a block with its speaker's name."""
    return Template(
        name,
        question=f"{{system}}{start}user{middle}{{images}}{{text}}{end}{after}{start}assistant{middle}",
        end=end,
        after=after,
        opening=f"{start}system{middle}{{system}}{end}{after}",
        system=system,
    )


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template("vicuna_v1", "{system}USER: {images}{text} ASSISTANT:", gap=" ", opening="{system} ", system=_CURIOUS),
        Template("plain", "{images}", end="\n", captions_only=True),
        Template("mistral", "[INST] {system}{images}{text} [/INST]", gap=" ", opening="{system}\n\n"),
        _blocks("chatml", "<|im_start|>", "\n", "<|im_end|>", "\n", "You are a helpful assistant."),
        _blocks("llama_3", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "", _HELPFUL),
        Template(
            "gemma",
            "<start_of_turn>user\n{system}{images}{text}<end_of_turn>\n<start_of_turn>model\n",
            end="<end_of_turn>",
            after="\n",
            opening="{system}\n\n",
        ),
        _blocks("phi_3", "<|", "|>\n", "<|end|>", "\n"),
        Template(
            "llava_llama_2",
            "[INST] {system}{images}{text} [/INST]",
            end=" {eos}",
            gap=" ",
            between="{bos}",
            opening="<<SYS>>\n{system}\n<</SYS>>\n\n",
            system=_HELPFUL,
        ),
    )
}

CONTROL_TOKENS = {  # that a tokenizer has if its language model knows the template
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama_3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi_3": ("<|user|>", "<|assistant|>", "<|end|>"),
}


def template_for(tokenizer: Any) -> Template:
    """The template whose control tokens a tokenizer has; without any, Mistral's if its own has it, or Vicuna's.

    Raises:
        UserError: it has neither such tokens nor an end-of-sequence token.
    """
    vocabulary = tokenizer.get_vocab()
    for name, tokens in CONTROL_TOKENS.items():
        if all(token in vocabulary for token in tokens):
            return TEMPLATES[name]
    if tokenizer.eos_token is None:
        raise UserError(
            f"The tokenizer of '{tokenizer.name_or_path}' has no token that could end an answer; give another language"
            " model."
        )
    return TEMPLATES["mistral" if "[INST]" in str(tokenizer.chat_template or "") else "vicuna_v1"]
