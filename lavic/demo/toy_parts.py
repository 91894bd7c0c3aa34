"""A toy CLIP and a toy Llama, of which a LLaVA can be composed: the real classes, saved as they are downloaded.

CLIP has learned what images show, and Llama to read a list of words and to talk about it. Neither has met the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
)

from lavic.batching.padding import IGNORED, pad_runs
from lavic.catalogue.records import Turn
from lavic.demo.image_talks import caption, talk
from lavic.demo.pretraining import begin_language, embed_pixels, optimizer_steps, train_tower
from lavic.demo.products import Look
from lavic.demo.questions import Shown
from lavic.demo.toy_configs import clip_config, cut_options, text_options
from lavic.demo.toy_llava_1_5 import (
    BACKGROUND_WORDS,
    PATCH,
    SIDE,
    TEXT_LAYERS,
    TEXT_WIDTH,
    VISION_LAYERS,
    VISION_WIDTH,
    VOCABULARY,
)
from lavic.demo.toy_tokenizer import IMAGE_TOKEN, train_tokenizer
from lavic.model.chat_text import ChatText
from lavic.model.templates import TEMPLATES

VISION_STEPS = 220
TEXT_STEPS, TEXT_BATCH = 120, 16
WORDS = (8, (SIDE // PATCH) ** 2)  # the fewest and the most words of a list
CAPTIONS = 0.4  # share of the texts that describe, where the others talk


def build_clip(folder: Path, images: Sequence[Image.Image], looks: Sequence[Look], seed: int) -> None:
    """Writes a CLIP vision tower with its image processor to `folder`.

    Args:
        folder: receives the checkpoint.
        images: P images that it has seen.
        looks: what they show.
        seed: of its weights and of the order.
    """
    processor = CLIPImageProcessor(**cut_options(SIDE))
    config = clip_config(SIDE, PATCH, VISION_WIDTH, VISION_LAYERS)
    pixels = processor(images=list(images), return_tensors="pt")["pixel_values"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = CLIPVisionModel(config)
        train_tower(tower, embed_pixels(tower, pixels)[:, None], looks, VISION_STEPS)
    tower.save_pretrained(folder)
    processor.save_pretrained(folder)


def build_llama(folder: Path, shown: Sequence[Shown], seed: int) -> None:
    """Writes a language model with its tokenizer to `folder`; it learns from texts alone.

    Each text is a conversation as Vicuna's, or a description, about a list of words that stands where LLaVA's image
    will: what `shown` products look like, in any order, each word any number of times.

    Args:
        folder: receives the checkpoint.
        shown: products whose looks are talked about.
        seed: of its weights and of the texts.
    """
    rng = Random(f"texts {seed}")
    tokenizer = train_tokenizer(_texts(shown, rng), max_tokens=VOCABULARY)
    config = LlamaConfig(**text_options(tokenizer, TEXT_WIDTH, TEXT_LAYERS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llama = LlamaForCausalLM(config)
        begin_language(llama.model, llama.lm_head)
        learn_to_talk(llama, tokenizer, shown, rng)
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def learn_to_talk(llama: LlamaForCausalLM, tokenizer: LlamaTokenizer, shown: Sequence[Shown], rng: Random) -> None:
    """Trains the language model on texts about lists of words."""
    chat = ChatText(tokenizer, TEMPLATES["vicuna_v1"])
    parameters = list(llama.parameters())
    for optimizer in optimizer_steps(parameters, TEXT_STEPS):
        texts = [_text(chat, one, rng) for one in rng.sample(list(shown), TEXT_BATCH)]
        batch = pad_runs([ids for ids, _ in texts], [runs for _, runs in texts], tokenizer.pad_token_id)
        states = llama.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        labels = batch["labels"][:, 1:]
        taught = labels != IGNORED
        loss = nn.functional.cross_entropy(llama.lm_head(states[:, :-1][taught]), labels[taught])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def _text(chat: ChatText, shown: Shown, rng: Random) -> tuple[list[int], list[tuple[int, int]]]:
    """A text's tokens and the runs of them that are learned, a list of words in the place of its image."""
    if rng.random() < CAPTIONS:
        ids = chat.tokenizer(f"{IMAGE_TOKEN}{caption(shown, rng)}\n")["input_ids"]
        runs = [(ids.index(chat.image_token_id) + 1, len(ids))]
    else:
        pairs = talk(shown, rng)
        turns = [turn for pair in pairs for turn in (Turn("user", pair[0]), Turn("assistant", pair[1]))]
        encoded = chat.encode([Turn("user", turns[0].text, images=1), *turns[1:]], [1])
        assert not isinstance(encoded, str)
        ids, runs = encoded.input_ids, encoded.spans
    words = _words(shown)
    listed = words + rng.choices(words, k=max(0, rng.randint(*WORDS) - len(words)))
    rng.shuffle(listed)
    place = ids.index(chat.image_token_id)
    tokens = chat.tokenizer.convert_tokens_to_ids([f"▁{word}" for word in listed])
    longer = len(tokens) - 1
    return [*ids[:place], *tokens, *ids[place + 1 :]], [(start + longer, stop + longer) for start, stop in runs]


def _words(shown: Shown) -> list[str]:
    product, image = shown
    look = image.look
    words = [look.colour, look.pattern, look.accent, look.form, BACKGROUND_WORDS[look.background], product.kind.noun]
    return [word for word in words if word]


def _texts(shown: Sequence[Shown], rng: Random) -> list[str]:
    """What the tokenizer learns from."""
    texts = 20 * [f"{TEMPLATES['vicuna_v1'].system} USER: ASSISTANT:"]
    for one in shown:
        pairs = " ".join(f"{question} {answer}" for question, answer in talk(one, rng))
        texts += [caption(one, rng), " ".join(_words(one)), pairs]
    return texts
