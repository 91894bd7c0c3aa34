"""Conversations as tokens: LLaVA's own prompts and counts, what is learned, what is only read, what is cut."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lavic.catalogue.records import Record, Turn, parse_record, read_records
from lavic.demo.toy_tokenizer import train_tokenizer
from lavic.errors import UserError
from lavic.files.rejected import Rejected
from lavic.model.chat_text import ChatText, EncodedRecord
from lavic.model.templates import TEMPLATES
from tests.real_tokenizers import NAMES, SHARED, needs_shared, tokenizer

ENDS = {  # of templates whose end is no tokenizer's own
    "chatml": "<|im_end|>", "llama_3": "<|eot_id|>", "gemma": "<end_of_turn>", "phi_3": "<|end|>",
}  # fmt: skip
WITH_ANSWERS = [name for name in TEMPLATES if name != "plain"]


def turns(*texts: str, images: int = 0) -> list[Turn]:
    """Question, answer, question, ...; the images stand in the first question."""
    return [
        Turn("assistant" if place % 2 else "user", text, 0 if place else images) for place, text in enumerate(texts)
    ]


def text_of(template: str, conversation: list[Turn] | tuple[Turn, ...], using: Any) -> str:
    return "".join(segment.text for segment in TEMPLATES[template].segments(conversation, None, using))


def encoded(chat: ChatText, *args: Any, **options: Any) -> EncodedRecord:
    found = chat.encode(*args, **options)
    assert isinstance(found, EncodedRecord), found
    return found


def learned(chat: ChatText, found: EncodedRecord) -> list[str]:
    """The supervised runs as text."""
    return [chat.tokenizer.decode(found.input_ids[start:stop]).strip(" ") for start, stop in found.spans]


def expected(template: str, conversation: list[Turn] | tuple[Turn, ...], using: Any) -> list[str]:
    end = {"plain": "\n", "llava_llama_2": f" {using.eos_token}"}.get(template, using.eos_token)
    return [turn.text.strip() + end for turn in conversation if turn.role == "assistant"]


def supervised(found: EncodedRecord) -> int:
    return sum(stop - start for start, stop in found.spans)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [r for r in read_records(SHARED / "llava" / "llava_instruct_50.json") if isinstance(r, Record)]


@needs_shared
@pytest.mark.parametrize("legacy", ["true", "false"])
def test_prompts_and_counts_are_llavas_own(records: list[Record], legacy: str) -> None:
    golden = json.loads((SHARED / "golden" / "llava_instruct_50_v1.json").read_text())
    using = tokenizer(f"llama2_legacy_{legacy}")
    chat = ChatText(using, TEMPLATES["vicuna_v1"])
    for record, entry in zip(records, golden, strict=True):
        text = text_of("vicuna_v1", record.turns, using)
        assert record.id == entry["id"]
        assert hashlib.sha256(text.encode()).hexdigest() == entry["prompt_sha256"]
        found, counts = encoded(chat, record.turns, [1]), entry[f"legacy_{legacy}"]
        # LLaVA tokenises what follows `<image>` as a text of its own; without `legacy` that puts a space before it
        assert len(found.input_ids) == counts["tokens"] - (legacy == "false")
        assert supervised(found) == counts["supervised"]


@needs_shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("template", list(TEMPLATES))
def test_answers_and_ends_alone_are_learned_and_a_prompt_is_how_training_begins(
    records: list[Record], template: str, name: str
) -> None:
    using = tokenizer(name, ENDS.get(template))
    chat = ChatText(using, TEMPLATES[template])
    for record in records[:25]:
        pairs = record.turns[:2] if template == "plain" else record.turns
        found = encoded(chat, pairs, [3])
        assert learned(chat, found) == expected(template, pairs, using)
        assert found.input_ids.count(chat.image_token_id) == 3
        for asked in range(1, len(pairs), 2):
            prompt = encoded(chat, pairs[:asked], [3])
            assert prompt.spans == found.spans[: asked // 2]
            assert found.input_ids[: len(prompt.input_ids)] == prompt.input_ids
            assert len(prompt.input_ids) == found.spans[asked // 2][0]


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_odd_answers_are_learned_whole(name: str) -> None:
    using = tokenizer(name)
    chat = ChatText(using, TEMPLATES["vicuna_v1"])
    for answer in ("5", "(a)", "...", "\n7 dogs", "🐶 ok", "He said ASSISTANT: hello.", "日本", "a\n\n", "USER: x"):
        found = encoded(chat, turns("What?", answer, "And?", "Yes."))
        assert learned(chat, found) == [f"{answer.strip()}{using.eos_token}", f"Yes.{using.eos_token}"]
        prompt = encoded(chat, turns("What?"))
        assert found.input_ids[: found.spans[0][0]] == prompt.input_ids


OUTCOMES: dict[str, tuple[list[int], list[str]] | str] = {
    "two turns": ([0, 1, 2, 3], ["A dog.", "Golden."]),
    "image in both turns": ([0, 1, 2, 3], ["A dog.", "Golden."]),
    "image at the end": ([0, 1], ["A dog."]),
    "starts with gpt": ([1, 2], ["A dog."]),
    "ends with human": ([0, 1], ["A dog."]),
    "empty answer": "no question with an answer",
    'answer has " ASSISTANT: "': ([0, 1], ["He said ASSISTANT: hello."]),
    "role system": "unknown role 'system'",
}


def quirks() -> Iterator[tuple[str, dict[str, Any]]]:
    path = SHARED / "golden" / "llava_quirks.json"
    if path.is_file():
        yield from json.loads(path.read_text())["cases"].items()


@needs_shared
def test_every_odd_conversation_has_its_outcome() -> None:
    assert dict(quirks()).keys() == OUTCOMES.keys()


@needs_shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", list(OUTCOMES))
def test_an_odd_conversation_is_used_or_named(case: str, name: str, tmp_path: Path) -> None:
    value, outcome = dict(quirks())[case], OUTCOMES[case]
    path = tmp_path / "records.json"
    path.write_text(json.dumps([{"id": case, "image": "a.jpg", "conversations": value["conversations"]}]))
    [record] = read_records(path)
    if isinstance(outcome, str):
        assert isinstance(record, Rejected)
        assert outcome in record.reason
        return
    assert isinstance(record, Record)
    assert len(record.turns) == len(outcome[0])
    for template in TEMPLATES:
        pairs = record.turns[:2] if template == "plain" else record.turns
        using = tokenizer(name, ENDS.get(template))
        chat = ChatText(using, TEMPLATES[template])
        found = encoded(chat, pairs, [1])
        assert learned(chat, found) == expected(template, pairs, using)
        assert [turn.text for turn in record.turns if turn.role == "assistant"] == outcome[1]
        assert found.input_ids.count(chat.image_token_id) == 1


@needs_shared
@pytest.mark.parametrize("case", ["two turns", "image at the end", "starts with gpt", 'answer has " ASSISTANT: "'])
def test_the_text_is_llavas_where_llava_is_right(case: str) -> None:
    value, using = dict(quirks())[case], tokenizer("llama2_legacy_true")
    record = parse_record({"image": "a.jpg", "conversations": value["conversations"]}, "1")
    for ours, theirs in (("vicuna_v1", "v1"), ("llava_llama_2", "llava_llama_2")):
        assert text_of(ours, record.turns, using) == value[theirs]["prompt"]
        if value[theirs]["legacy_true"]["supervised_tokens"]:
            found = encoded(ChatText(using, TEMPLATES[ours]), record.turns, [1])
            assert len(found.input_ids) == value[theirs]["legacy_true"]["tokens"]
            assert supervised(found) == value[theirs]["legacy_true"]["supervised_tokens"]
    assert text_of("mistral", record.turns, using) == value["mistral_instruct"]["prompt"].replace(" </s>", "</s>")


def test_texts_to_the_letter() -> None:
    using = train_tokenizer(["A dog."], 20)
    conversation = turns("Q", "A", images=1)
    assert text_of("plain", conversation, using) == "<image>A\n"
    assert text_of("chatml", conversation, using) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nQ<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n"
    )
    block = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>".format
    assert text_of("llama_3", conversation, using) == (
        block("system", TEMPLATES["llama_3"].system) + block("user", "<image>\nQ") + block("assistant", "A")
    )
    assert text_of("gemma", conversation, using) == (
        "<start_of_turn>user\n<image>\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
    )
    assert text_of("phi_3", conversation, using) == "<|user|>\n<image>\nQ<|end|>\n<|assistant|>\nA<|end|>\n"
    said = "".join(s.text for s in TEMPLATES["vicuna_v1"].segments(turns("{Q}", "A"), "Be {brief}.", using))
    assert said == "Be {brief}. USER: {Q} ASSISTANT: A</s>"


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_what_people_write_stays_text(name: str) -> None:
    using = tokenizer(name)
    chat = ChatText(using, TEMPLATES["vicuna_v1"])
    special = sorted(set(using.all_special_ids) | {chat.image_token_id})
    rude = f"Is <image> {using.eos_token} or {using.eos_token}{using.eos_token}<ima<image>ge> \ue000?"
    plain = encoded(chat, turns("Is it?", "Yes.", images=1), [2])
    found = encoded(chat, turns(rude, f"No, {using.eos_token} <image>.", images=1), [2], system=f"Be {rude}")
    for token in special:
        assert found.input_ids.count(token) == plain.input_ids.count(token) or token == using.bos_token_id
    assert chat.tokenizer.decode(found.input_ids).count(rude) == 2
    assert learned(chat, found) == [f"No, {using.eos_token} <image>.{using.eos_token}"]


@needs_shared
@pytest.mark.parametrize("template", list(ENDS))
def test_a_template_whose_end_does_not_stop_the_model_is_refused(template: str) -> None:
    for name in NAMES:
        using = tokenizer(name)
        if using.eos_token != ENDS[template]:
            with pytest.raises(UserError, match="would never learn to"):
                ChatText(using, TEMPLATES[template])
    with pytest.raises(UserError, match="would never learn to"):
        ChatText(tokenizer("qwen1_5"), TEMPLATES["vicuna_v1"], eos_ids=[151643])
    ChatText(tokenizer("qwen1_5"), TEMPLATES["vicuna_v1"], eos_ids=[151643, 151645])


def test_what_is_too_long_loses_its_oldest_pairs_but_no_image_and_no_answer() -> None:
    using = train_tokenizer(["A dog is small and brown and old."], 40)
    chat = ChatText(using, TEMPLATES["mistral"])
    conversation = turns("First one?", "A dog.", "Second?", "Brown.", "Third question is long " * 4, "Old.", images=2)
    whole = encoded(chat, conversation, [2, 3])
    assert (whole.dropped, whole.shortened) == (0, False)
    assert encoded(chat, conversation, [2, 3], max_length=len(whole.input_ids)) == whole
    ends = expected("mistral", conversation, using)
    for dropped in (1, 2):
        kept = [Turn("user", conversation[2 * dropped].text, 2), *conversation[2 * dropped + 1 :]]
        shorter = encoded(chat, kept, [2, 3])
        found = encoded(chat, conversation, [2, 3], max_length=len(shorter.input_ids))
        assert found.input_ids == shorter.input_ids
        assert found.dropped == dropped
        assert learned(chat, found) == ends[dropped:]
    cut = encoded(chat, conversation, [2, 3], max_length=len(shorter.input_ids) - 7)
    assert cut.shortened
    assert len(cut.input_ids) <= len(shorter.input_ids) - 7
    assert len(cut.input_ids) > len(shorter.input_ids) - 12
    assert cut.input_ids.count(chat.image_token_id) == 5
    assert learned(chat, cut) == ends[2:]
    assert chat.encode(conversation, [2, 3], max_length=10) == "too long for max_length"
    prompt = encoded(chat, conversation[:-1], [2, 3], max_length=len(shorter.input_ids) - 7)
    assert prompt.input_ids.count(chat.image_token_id) == 5
    assert not prompt.spans


def test_a_caption_needs_an_image_and_is_not_cut() -> None:
    chat = ChatText(train_tokenizer(["A dog."], 20), TEMPLATES["plain"])
    assert "with an image" in str(chat.encode(turns("Q", "A")))
    assert "with an image" in str(chat.encode(turns("Q", "A", "Q", "A", images=1), [1]))
    assert chat.encode(turns("Q", "A dog.", images=1), [9], max_length=10) == "too long for max_length"


def test_too_many_images_are_an_error_not_a_slide() -> None:
    chat = ChatText(train_tokenizer(["A dog."], 20), TEMPLATES["mistral"])
    with pytest.raises(ValueError, match="fewer stand in the turns"):
        chat.encode(turns("Q", "A", images=1), [1, 1])
