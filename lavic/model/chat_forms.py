"""Chat templates for language models that come without images: the form that their control tokens were made for.

Each writes an image as `<image>` and a newline before its turn's text, and marks an answer and its end token, nothing
else, as generated. The beginning-of-sequence token is the tokenizer's to add.
"""

from dataclasses import dataclass
from typing import Any

from lavic.errors import UserError

_CONTENT = """{%- macro content(message) -%}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class ChatForm:
    """A way to write a conversation.

    Args:
        name: as docs and other options call it.
        end: the token that ends an answer; null is the tokenizer's end-of-sequence token.
        template: jinja2, for transformers' `apply_chat_template`.
    """

    name: str
    end: str | None
    template: str


def _blocks(name: str, start: str, after_role: str, end: str, assistant: str, system: str | None = None) -> ChatForm:
    """A form in which every turn is `start role after_role text end newline`."""
    newline = "" if name == "llama_3" else "\\n"
    opening = f"{start}system{after_role}{system}{end}{newline}"
    preset = f"{{%- if messages[0]['role'] != 'system' -%}}{{{{ '{opening}' }}}}{{%- endif -%}}\n" if system else ""
    role = f"('{assistant}' if message['role'] == 'assistant' else message['role'])"
    return ChatForm(
        name,
        end,
        _CONTENT
        + preset
        + "{%- for message in messages -%}\n"
        + f"{{{{ '{start}' + {role} + '{after_role}' }}}}\n"
        + "{%- if message['role'] == 'assistant' -%}\n"
        + f"{{% generation %}}{{{{ content(message) + '{end}' }}}}{{% endgeneration %}}{{{{ '{newline}' }}}}\n"
        + f"{{%- else -%}}{{{{ content(message) + '{end}{newline}' }}}}{{%- endif -%}}\n"
        + "{%- endfor -%}\n"
        + f"{{%- if add_generation_prompt -%}}{{{{ '{start}{assistant}{after_role}' }}}}{{%- endif -%}}",
    )


CHATML = _blocks("chatml", "<|im_start|>", "\\n", "<|im_end|>", "assistant", "You are a helpful assistant.")
LLAMA_3 = _blocks("llama_3", "<|start_header_id|>", "<|end_header_id|>\\n\\n", "<|eot_id|>", "assistant")
GEMMA = _blocks("gemma", "<start_of_turn>", "\\n", "<end_of_turn>", "model")
PHI_3 = _blocks("phi_3", "<|", "|>\\n", "<|end|>", "assistant")
MISTRAL = ChatForm(
    "mistral",
    None,
    _CONTENT
    + """{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{ ' ' }}{% generation %}{{ content(message) + eos_token }}{% endgeneration %}
{%- elif message['role'] == 'system' -%}{{ '[INST] ' + content(message) + ' [/INST]' }}
{%- else -%}{{ '[INST] ' + content(message) + ' [/INST]' }}
{%- endif -%}
{%- endfor -%}""",
)
VICUNA_V1 = ChatForm(
    "vicuna_v1",
    None,
    _CONTENT
    + f"""{{%- if messages[0]['role'] != 'system' -%}}{{{{ "{_VICUNA} " }}}}{{%- endif -%}}
"""
    + """{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{ ' ' }}{% generation %}{{ content(message) + eos_token }}{% endgeneration %}
{%- elif message['role'] == 'system' -%}{{ content(message) + ' ' }}
{%- else -%}{{ 'USER: ' + content(message) + ' ASSISTANT:' }}
{%- endif -%}
{%- endfor -%}""",
)


def form_for(tokenizer: Any) -> ChatForm:
    """The form whose control tokens a tokenizer has; without any, Mistral's if its own template has it, or Vicuna's.

    Raises:
        UserError: it has neither such tokens nor an end-of-sequence token.
    """
    vocabulary = tokenizer.get_vocab()
    for form, tokens in (
        (CHATML, ("<|im_start|>", "<|im_end|>")),
        (LLAMA_3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
        (GEMMA, ("<start_of_turn>", "<end_of_turn>")),
        (PHI_3, ("<|user|>", "<|assistant|>", "<|end|>")),
    ):
        if all(token in vocabulary for token in tokens):
            return form
    if tokenizer.eos_token is None:
        raise UserError(
            f"The tokenizer of '{tokenizer.name_or_path}' has no token that could end an answer; give another language"
            " model."
        )
    return MISTRAL if "[INST]" in str(tokenizer.chat_template or "") else VICUNA_V1
