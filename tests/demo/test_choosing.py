"""What the toy's pretraining teaches besides descriptions, and that it can be learned."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from lavic.demo.catalogue import sample_products
from lavic.demo.choosing import ALL, COLOUR, NOTHING, PATTERN, Choice, Choices, ChoosingLoss, naming_loss
from lavic.demo.pretraining import Shown, begin_language
from lavic.demo.products import ACCENTS, COLOURS, FORMS, ID_END, ID_START, PATTERNS
from lavic.demo.toy_llava import TOY, _other_images, _texts, new_model, new_processor, save_checkpoint
from lavic.demo.toy_tokenizer import train_tokenizer
from lavic.model.processor import load_processor

Toy = tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]


@pytest.fixture(scope="module")
def shown() -> list[Shown]:
    return list(islice(_other_images(sample_products()[1], 0), 200))


@pytest.fixture(scope="module")
def choices(shown: list[Shown]) -> list[Choice]:
    several = Choices(shown, Random(0))
    return [several.invent(10, titled=index % 2 == 0, whole=index % 3 == 0) for index in range(60)]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, shown: list[Shown]) -> Toy:
    folder: Path = tmp_path_factory.mktemp("toy")
    tokenizer = train_tokenizer(_texts(shown), max_tokens=1200)
    torch.manual_seed(0)
    llava = new_model(tokenizer, TOY)
    begin_language(llava.model.language_model, llava.lm_head, llava.model.multi_modal_projector)
    save_checkpoint(folder, llava, new_processor(tokenizer, TOY))
    return llava, load_processor(str(folder))


def test_exactly_the_answer_fits_the_wish(shown: list[Shown], choices: list[Choice]) -> None:
    for choice in choices:
        fitting = [piece for piece, met in zip(choice.pieces, choice.met, strict=True) if met == ALL]
        assert [ID_START + piece + ID_END for piece in fitting] == [choice.answer]
        wanted = shown[choice.images[choice.met.index(ALL)]][1].look
        assert wanted.colour in choice.prompt
        for index, met in zip(choice.images, choice.met, strict=True):
            assert (shown[index][1].look.colour == wanted.colour) == (met in (ALL, COLOUR))
            if wanted.pattern in choice.prompt:
                assert (shown[index][1].look.pattern == wanted.pattern) == (met in (ALL, PATTERN))
    assert set(Counter(met for choice in choices for met in choice.met)) == {NOTHING, COLOUR, PATTERN, ALL}


def test_neither_titles_nor_places_nor_ids_tell_the_answer(choices: list[Choice]) -> None:
    telling = {*COLOURS, *PATTERNS, *FORMS, *ACCENTS}
    for choice in choices:
        listed = choice.prompt.partition("\nCandidates:\n")[2].replace(",", "").split()
        assert not telling & set(listed)
        assert [word[2:4] for word in listed if word.endswith(ID_END + ":")] == choice.pieces
    assert len({choice.met.index(ALL) for choice in choices}) == 10
    assert len({choice.answer for choice in choices}) > 40


def test_the_images_are_not_the_sample_catalogues(shown: list[Shown]) -> None:
    looks = {(product.kind, image.look) for product in sample_products()[1] for image in product.images}
    assert not looks & {(product.kind, image.look) for product, image in shown}


def test_colours_and_patterns_are_single_tokens(toy: Toy) -> None:
    tokenizer = toy[1].tokenizer
    ids = tokenizer.convert_tokens_to_ids(["▁" + word for word in (*COLOURS, *PATTERNS)])
    assert len(set(ids)) == len(ids)
    assert tokenizer.unk_token_id not in ids


def test_losses_reach_the_projector_and_the_language_model(toy: Toy, shown: list[Shown]) -> None:
    llava, processor = toy
    features = torch.randn(len(shown), 5, TOY.vision_width)
    choosing = ChoosingLoss(llava, processor, Choices(shown, Random(0)), features)
    answered, silent = choosing.of([choosing.choices.invent(3, True, False) for _ in range(4)])
    naming = naming_loss(llava, processor, [image for _, image in shown[:8]], features[:8])
    projector = llava.model.multi_modal_projector.linear_1.weight
    query = llava.model.language_model.layers[0].self_attn.q_proj.weight
    for loss, part in ((answered, projector), (answered, query), (silent, query), (naming, projector)):
        (gradient,) = torch.autograd.grad(loss, part, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert all("llava" not in name for name, _ in choosing.named_parameters())


def test_comparing_and_copying_are_near_at_hand_at_first(toy: Toy) -> None:
    llava, _ = toy
    language = llava.model.language_model
    assert torch.equal(llava.lm_head.weight, language.embed_tokens.weight)
    *others, last = [layer.self_attn for layer in language.layers]
    hidden = torch.randn(6, language.config.hidden_size)

    def heads(part: torch.nn.Linear) -> torch.Tensor:
        """(query or key heads, 6 tokens, width of a head)"""
        by_head: torch.Tensor = part(hidden).unflatten(1, (-1, last.head_dim)).transpose(0, 1)
        return by_head

    with torch.no_grad():
        for attention in others:
            queries, keys = heads(attention.q_proj), heads(attention.k_proj)
            scores = queries @ keys.repeat_interleave(attention.num_key_value_groups, dim=0).transpose(1, 2)
            assert (scores.diagonal(dim1=1, dim2=2) > scores.mean(2)).all()  # what is alike attracts
        values = heads(last.v_proj).repeat_interleave(last.num_key_value_groups, dim=0)
        written = last.o_proj(values.transpose(0, 1).flatten(1))
        assert (written @ hidden.T).argmax(1).tolist() == list(range(6))
