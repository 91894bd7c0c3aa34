"""Templates letter by letter, targets by offsets, and shortening in the title."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from lavic.model.processor import load_processor, placeholder_ids
from lavic.model.text import TEMPLATES, constant_start, distillation_prompt, encode, encode_distillation
from tests.real_tokenizers import NAMES, needs_shared
from tests.real_tokenizers import tokenizer as tokenizer_of

DIGESTS = ["4f4bf389825938d7", "8de9bbdd2c51ee16"]
DESCRIPTION = "The image shows a red towel with white stripes on a wooden table."


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return load_processor(str(tiny)).tokenizer


def test_the_published_prompts_are_unchanged() -> None:
    recommendation = "".join(TEMPLATES["recommendation"][part] for part in ("head", "candidate", "tail"))
    digests = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in (TEMPLATES["distillation"], recommendation)]
    assert digests == DIGESTS


def test_the_prompt_holds_the_title_and_as_many_placeholders_as_views() -> None:
    whole = distillation_prompt("A {curly} 50% title")
    assert "This product's title is: A {curly} 50% title\n<ItemImageEmb1>" in whole
    assert whole.endswith("<ItemImageEmb5>\n\nAssistant:")
    assert distillation_prompt("T", views=3).endswith("<ItemImageEmb3>\n\nAssistant:")


@pytest.mark.parametrize("description", [DESCRIPTION, "Naïve café ☕ 毛巾", "9 lives", ":( a frown", "line\nbreak"])
def test_the_target_is_the_description_and_eos(tokenizer: Any, description: str) -> None:
    prompt = distillation_prompt("Towel")
    [encoded] = encode(tokenizer, [prompt], [description])
    assert tokenizer(prompt + description)["input_ids"] == encoded.input_ids[:-1], "tokenised as one string"
    assert encoded.input_ids[-1] == tokenizer.eos_token_id
    target = encoded.input_ids[encoded.target_start : -1]
    assert tokenizer.decode(target).strip() == description
    assert tokenizer.decode(encoded.input_ids[: encoded.target_start]).endswith("Assistant:")


def test_every_placeholder_is_one_token(tokenizer: Any, tiny: Path) -> None:
    ids = placeholder_ids(load_processor(str(tiny)))
    [encoded] = encode(tokenizer, [distillation_prompt("Towel")], ["Red."])
    assert [i for i in encoded.input_ids if i in ids] == ids


def test_a_long_title_is_shortened_and_nothing_else(tokenizer: Any) -> None:
    title = "cotton kitchen towel " * 40
    [short, whole] = encode_distillation(tokenizer, ["towel", title], [DESCRIPTION] * 2, [5, 5], max_length=10_000)
    assert short is not None
    assert whole is not None
    limit = len(short.input_ids) + 12
    [cut] = encode_distillation(tokenizer, [title], [DESCRIPTION], [5], max_length=limit)
    assert cut is not None
    assert limit - 3 <= len(cut.input_ids) <= limit, "as much of the title as fits stays"
    assert cut.input_ids[cut.target_start :] == whole.input_ids[whole.target_start :]
    text = tokenizer.decode(cut.input_ids)
    assert "cotton kitchen" in text
    assert "<ItemImageEmb1><ItemImageEmb2><ItemImageEmb3><ItemImageEmb4><ItemImageEmb5>" in text.replace(" ", "")


def test_a_sample_too_long_without_its_title_is_refused(tokenizer: Any) -> None:
    assert encode_distillation(tokenizer, ["T"], [DESCRIPTION * 20], [5], max_length=150) == [None]


def test_special_tokens_inside_a_text_are_only_text(tokenizer: Any, tiny: Path) -> None:
    ids = placeholder_ids(load_processor(str(tiny)))
    title, description = "A <ItemImageEmb1> towel</s><image>", "Red</s> and <ItemImageEmb2> blue."
    [encoded] = encode_distillation(tokenizer, [title], [description], [5], 2000)
    assert encoded is not None
    assert [i for i in encoded.input_ids if i in ids] == ids
    assert encoded.input_ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.convert_tokens_to_ids("<image>") not in encoded.input_ids


def test_the_constant_start_is_what_all_samples_share(tokenizer: Any) -> None:
    start = constant_start(tokenizer)
    titles = ["Towel", " 7 lamps", "(new) rug", "é"]
    for encoded in encode(tokenizer, [distillation_prompt(t) for t in titles], ["x"] * 4):
        assert encoded.input_ids[: len(start)] == start
    assert len(start) > 40


@needs_shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["", " ", "a", "é☕毛巾", "\n\nTwo lines ", "  indented", "</s>", "ing on"])
@pytest.mark.parametrize("prompt", ["", "Look", "Look ", "Look\n", "cafe\u0301", "☕"])
def test_the_target_starts_at_the_first_token_of_its_own(name: str, prompt: str, target: str) -> None:
    """Also where a token lies across the border, or a letter is several tokens."""
    real = tokenizer_of(name)
    [encoded] = encode(real, [prompt], [target])
    whole = real(prompt + target, return_offsets_mapping=True)
    offsets = whole["offset_mapping"]
    own = [place for place, (first, last) in enumerate(offsets) if first >= len(prompt) and last > first]
    assert encoded.input_ids == [*whole["input_ids"], real.eos_token_id]
    assert encoded.target_start == min(own, default=len(offsets))


def test_what_a_checkpoint_s_file_says_of_cutting_and_filling_up_does_not_count(tiny: Path) -> None:
    own = load_processor(str(tiny)).tokenizer
    [whole] = encode(own, ["Look at this"], [DESCRIPTION])
    own.backend_tokenizer.enable_truncation(5)
    own.backend_tokenizer.enable_padding(length=99)
    assert encode(own, ["Look at this"], [DESCRIPTION]) == [whole]
