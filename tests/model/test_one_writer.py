"""One function writes every prompt: people's words letter for letter, a template's own tokens whole.

Two real tokenizers have oddities that the small ones here have as well: SmolLM2's beginning token is the one with which
its template starts, and Gemma 3 has line breaks and markup among its added tokens, which control nothing.
`LAVIC_TOKENIZERS` names a folder with directories of real ones, to be asked the same.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from lavic.catalogue.records import Turn
from lavic.model.chat_text import ChatText, EncodedRecord
from lavic.model.rendered_template import RenderedTemplate
from lavic.model.templates import Writes, template_for
from lavic.model.text import without_special_tokens
from lavic.tasks.vqa.prompt import Question, question_turn
from tests.real_tokenizers import NAMES, SHARED, tokenizer
from tests.toy_tokenizer import toy_tokenizer

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' }}{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
WORDS = "what is\nit <b>here</b>?\tAnd <td>there</td>, \u201cdear\u201d?"


def like_smollm2() -> Any:
    made = toy_tokenizer()
    made.add_special_tokens({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    made.backend_tokenizer.post_processor = None  # it begins nothing by itself
    made.chat_template = CHATML
    return made


def like_gemma_3() -> Any:
    made = toy_tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    made.add_tokens(
        [AddedToken(word, special=False, normalized=False) for word in ("\n", "<b>", "</b>", "<td>", "</td>")]
    )
    made.chat_template = GEMMA
    return made


def given() -> list[Any]:
    folder = os.environ.get("LAVIC_TOKENIZERS")
    reason = pytest.mark.skip(reason="LAVIC_TOKENIZERS names no folder of real tokenizers")
    if not folder:
        return [pytest.param(None, id="LAVIC_TOKENIZERS", marks=reason)]
    return [
        pytest.param(lambda path=path: AutoTokenizer.from_pretrained(path), id=path.name)
        for path in sorted(Path(folder).iterdir())
    ]


def real(name: str) -> Any:
    mark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")
    return pytest.param(lambda: tokenizer(name), id=name, marks=mark)


MADE = [
    pytest.param(like_smollm2, id="like SmolLM2"),
    pytest.param(like_gemma_3, id="like Gemma 3"),
    *map(real, NAMES),
    *given(),
]


def writer(using: Any) -> Writes:
    return RenderedTemplate(using.chat_template or template_for(using).jinja(), "it", using)


@pytest.mark.parametrize("make", MADE)
def test_what_people_wrote_is_read_letter_for_letter(make: Callable[[], Any]) -> None:
    using = make()
    using.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    asked = Question(0, "1.jpg", WORDS, WORDS, True, f"One </s> of\n\nthe <i>best</i> {using.eos_token}.")
    template = writer(using)
    turn = question_turn(asked, "Look at\nit.")
    ends = {int(using(list(template.segments([turn, Turn("assistant", "a")], None, using))[-1].text)["input_ids"][-1])}
    chat = ChatText(using, template, ends)
    whole = chat.encode([turn, Turn("assistant", asked.answer)], [3])
    prompt = chat.encode([turn], [3])
    assert isinstance(whole, EncodedRecord)
    assert isinstance(prompt, EncodedRecord)
    [(start, stop)] = whole.spans
    assert whole.input_ids[:start] == prompt.input_ids
    read = using.decode(whole.input_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert WORDS in using.decode(whole.input_ids[start:stop], clean_up_tokenization_spaces=False)
    assert f"\n{asked.description}\n{WORDS}" in read
    image = using.convert_tokens_to_ids("<image>")
    assert whole.input_ids.count(image) == 3
    assert sum(whole.input_ids.count(end) for end in ends) == sum(prompt.input_ids.count(end) for end in ends) + 1


@pytest.mark.parametrize("make", MADE)
def test_a_template_s_own_tokens_are_whole_and_those_that_its_saved_form_gives(make: Callable[[], Any]) -> None:
    using = make()
    template = writer(using)
    messages = [{"role": "user", "content": "What is it?"}]
    source = using.chat_template or template_for(using).jinja()
    rendered = using.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=True)
    begins = using.bos_token_id in using("")["input_ids"]
    expected = using(rendered.removeprefix(using.bos_token) if begins else rendered)["input_ids"]
    end = list(template.segments([Turn("user", "a"), Turn("assistant", "b")], None, using))[-1].text
    chat = ChatText(using, template, {int(using(end)["input_ids"][-1])})
    found = chat.encode([Turn("user", "What is it?")])
    assert isinstance(found, EncodedRecord)
    assert found.input_ids == expected


def test_words_that_were_only_added_to_a_vocabulary_stay_in_published_prompts_too() -> None:
    using = like_gemma_3()
    assert without_special_tokens(using, f"{WORDS}<end_of_turn></s><image>") == WORDS


THINKING = (
    "{% for message in messages %}{% if message['role'] == 'assistant' and not loop.last %}"
    "{{ 'A: ' + message['content'].split('</think>')[-1] + '</s>' }}{% elif message['role'] == 'assistant' %}"
    "{{ 'A: ' + message['content'] + '</s>' }}{% else %}{{ 'Q: ' + message['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)


SPARE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
)


def test_the_next_turn_s_header_is_not_the_end_of_an_answer() -> None:
    using = like_smollm2()
    said = [Turn("user", "One?"), Turn("assistant", "Two."), Turn("user", "And?"), Turn("assistant", "Three.")]
    segments = list(RenderedTemplate(SPARE, "it", using).segments(said, None, using))
    assert [one.text for one in segments if one.supervised] == [" Two.<|im_end|>", " Three.<|im_end|>"]
    assert [one.text for one in segments if not one.supervised][1] == "<|im_start|>user And?<|im_start|>assistant"


def test_a_template_that_forgets_thoughts_is_refused_where_it_does() -> None:
    from lavic.errors import UserError

    using = toy_tokenizer()
    template = RenderedTemplate(THINKING, "thinker", using)
    plain = [Turn("user", "One?"), Turn("assistant", "Two."), Turn("user", "And?"), Turn("assistant", "Three.")]
    learned = [segment.text for segment in template.segments(plain, None, using) if segment.supervised]
    assert learned == [" Two.</s>", " Three.</s>"]
    thoughtful = [plain[0], Turn("assistant", "<think>So.</think>Two."), *plain[2:]]
    with pytest.raises(UserError, match="'thinker' writes a conversation otherwise when it goes on"):
        list(template.segments(thoughtful, None, using))
