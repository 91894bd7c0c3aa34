"""The prompt as published, and what is lost when it is too long."""

import re

import pytest

from lavic.errors import UserError
from lavic.model.text import PLACEHOLDERS
from lavic.tasks.recommendation.prompt import Shown, encode_choice, recommendation_prompt
from tests.toy_tokenizer import toy_tokenizer

FIVE = "".join(PLACEHOLDERS)
SHOWN = [Shown("B00NN2Y04E", "Red {title} towel", 5), Shown("5555454546", "Book", 5), Shown("B0X", "Mug", 0)]
IDS = [shown.id for shown in SHOWN]
TOKENIZER = toy_tokenizer()


def test_the_prompt_is_the_published_one() -> None:
    prompt = recommendation_prompt("<submission>Any {asin}?</submission>\n", SHOWN)
    head, _, rest = prompt.partition("\n\nConversation:\n")
    assert head.endswith("Only reply with its ID, and don't say anything else.")
    assert rest == (
        "<submission>Any {asin}?</submission>\n\n\nCandidates:\n"
        f"B00NN2Y04E: Red {{title}} towel\n{FIVE}\n5555454546: Book\n{FIVE}\nB0X: Mug\n\nAssistant:"
    )


@pytest.mark.parametrize("shown", [SHOWN, SHOWN[:2], [Shown("B0X", "Mug", 0)], [Shown("B0X", "Mug", 3)]])
@pytest.mark.parametrize("merges", [(), ("Assistant:B0 Assistant:B0X",) * 50])
def test_tokens_are_those_of_prompt_and_answer_as_one_string(shown: list[Shown], merges: tuple[str, ...]) -> None:
    tokenizer = toy_tokenizer(merges)
    ids = [s.id for s in shown] + ["B0X", "978-1"]
    choice = encode_choice(tokenizer, "Something red?", shown, ids, 2048)
    prompt = recommendation_prompt("Something red?", shown)
    for answer, item in zip(choice.answers, ids, strict=True):
        whole = tokenizer(prompt + item, return_offsets_mapping=True)
        assert choice.prompt_ids + answer == [*whole["input_ids"], tokenizer.eos_token_id]
    first_scored = len(choice.prompt_ids) + choice.unscored
    starts = tokenizer(prompt + ids[0], return_offsets_mapping=True)["offset_mapping"]
    assert starts[first_scored][0] >= len(prompt) or "B0" in "".join(merges)


def test_a_long_conversation_loses_its_oldest_part_and_no_candidate() -> None:
    words = [f"word{i}" for i in range(900)]
    for max_length in (400, 500, 777):
        choice = encode_choice(TOKENIZER, " ".join(words), SHOWN, IDS, max_length)
        length = len(choice.prompt_ids) + max(map(len, choice.answers))
        assert max_length - 25 < length <= max_length
        text = TOKENIZER.decode(choice.prompt_ids)
        kept = re.findall(r"word\d+", text)
        assert kept == words[-len(kept) :]
        assert all(f"{s.id}: {s.title}" in text for s in SHOWN)
        assert text.count(FIVE) == 2
        assert text.endswith("\n\nAssistant:")


def test_titles_are_cut_evenly_when_they_alone_are_too_long() -> None:
    shown = [Shown("A1", "long " * 200, 5), Shown("A2", "brief", 5), Shown("A3", "wordy " * 200, 5)]
    choice = encode_choice(TOKENIZER, "hello", shown, ["A1", "A2", "A3"], 500)
    assert len(choice.prompt_ids) + max(map(len, choice.answers)) <= 500
    text = TOKENIZER.decode(choice.prompt_ids)
    lengths = [len(re.search(rf"{s.id}: (.*)\n", text)[1]) for s in shown]  # type: ignore[index]
    assert lengths[1] == len("brief")
    assert 20 < lengths[0] <= lengths[2] + 1 <= lengths[0] + 6
    assert text.count(FIVE) == 3


def test_an_impossible_max_length_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"max_length is 50, but 3 candidates need \d+ tokens"):
        encode_choice(TOKENIZER, "hello", SHOWN, IDS, 50)


def test_text_cannot_smuggle_in_a_placeholder_or_an_end() -> None:
    shown = [Shown("A1", "Title <ItemImageEmb1> </s>", 5)]
    choice = encode_choice(TOKENIZER, "I want </s> <image> <ItemImageEmb2>", shown, ["A1"], 2048)
    placeholders = set(TOKENIZER.convert_tokens_to_ids(list(PLACEHOLDERS)))
    assert sum(i in placeholders for i in choice.prompt_ids) == 5
    assert TOKENIZER.eos_token_id not in choice.prompt_ids
