"""LLaVA-v1.6 at toy size: the real model and processor classes, saved in the real checkpoint's form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random

import torch
from transformers import (
    LlamaTokenizer,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
)
from transformers.utils import logging as transformers_logging

from lavic.demo.conversations import converse
from lavic.demo.pretraining import (
    Shown,
    begin_language,
    embed_patches,
    mean_patch_features,
    train_language,
    train_tower,
)
from lavic.demo.products import ID_END, ID_PIECES, ID_START, Product, make_products
from lavic.demo.toy_configs import clip_config, cut_options, text_options
from lavic.demo.toy_tokenizer import IMAGE_TOKEN, train_tokenizer
from lavic.model.processor import load_processor
from lavic.model.text import TEMPLATES

VIEW_SIZE = 336
FREE_ROWS = 8

TINY_TEXTS = (
    "You are a helpful assistant. Given a product's title and its image, please provide a description.",
    "The image shows a red towel with white stripes on a wooden table. Its edges are straight.",
    "A round blue rug with green dots lies on a grey floor, and its border is plain.",
    "This product's title is: Norwell Kitchen Towel Set, Large, Pack of 2",
    "Among the candidates, recommend the most relevant product to the seeker. Only reply with its ID.",
    "Conversation: I am looking for something yellow with checks for the kitchen. Candidates: Assistant:",
)


@dataclass(frozen=True)
class ToySize:
    """Widths and depths of a toy LLaVA-v1.6; views are 336 x 336 pixels, as in the real one.

    Args:
        patch: side of a vision patch in pixels; a view has (336 / patch)^2 patch tokens and one class token.
        vision_width, vision_layers: the CLIP vision tower.
        text_width, text_layers: the Mistral language model.
    """

    patch: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int


TINY = ToySize(patch=56, vision_width=32, vision_layers=2, text_width=48, text_layers=2)
TOY = ToySize(patch=56, vision_width=96, vision_layers=3, text_width=128, text_layers=3)

IMAGES = 700


def new_processor(tokenizer: LlamaTokenizer, size: ToySize) -> LlavaNextProcessor:
    """The real checkpoint's processor, with the toy's patch size."""
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(**cut_options(VIEW_SIZE)),
        tokenizer=tokenizer,
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
    )


def new_model(tokenizer: LlamaTokenizer, size: ToySize) -> LlavaNextForConditionalGeneration:
    """An untrained model; its embedding matrix has at least `FREE_ROWS` rows that `tokenizer` leaves free."""
    vision = clip_config(VIEW_SIZE, size.patch, size.vision_width, size.vision_layers)
    text = MistralConfig(
        **text_options(tokenizer, size.text_width, size.text_layers, FREE_ROWS),
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # the real one's
        sliding_window=None,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(VIEW_SIZE // size.patch) ** 2,
    )
    return LlavaNextForConditionalGeneration(config)


def save_checkpoint(folder: Path, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor) -> None:
    """Writes weights, configuration and processor files, so that `folder` serves as `--model_name`."""
    folder.mkdir(parents=True, exist_ok=True)
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def build(folder: Path, held_out: Sequence[Product], seed: int = 0) -> None:
    """Trains the toy and its tokenizer and writes the checkpoint to `folder`; about two minutes on two cores.

    What it learns from are `IMAGES` images and descriptions of *other* products than the sample
    catalogue's, invented with other seeds.

    Args:
        folder: receives the checkpoint.
        held_out: products whose look, as far as the titles leave it open, must not occur in training: the
            sample's validation items.
        seed: of the products, the weights and the order.
    """
    shown = list(islice(_other_images(held_out, seed), IMAGES))
    tokenizer = train_tokenizer(_texts(shown), max_tokens=1200)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llava = new_model(tokenizer, TOY)
        begin_language(llava.model.language_model, llava.lm_head, llava.model.multi_modal_projector)
        save_checkpoint(folder, llava, new_processor(tokenizer, TOY))
        processor = load_processor(str(folder.resolve()))
        patches = embed_patches(llava, processor, shown)
        train_tower(llava.model.vision_tower, patches, [image.look for _, image in shown])
        train_language(llava, processor, shown, mean_patch_features(llava, patches), seed)
    llava.save_pretrained(folder)


def _other_images(held_out: Sequence[Product], seed: int) -> Iterator[Shown]:
    avoided = {(product.kind, image.look) for product in held_out for image in product.images}
    for world in count(1):
        for product in make_products(30, seed=1000 * (seed + 1) + world):
            for image in product.images:
                if (product.kind, image.look) not in avoided:
                    yield product, image


def _texts(shown: Sequence[Shown]) -> list[str]:
    """What the toy's tokenizer learns from.

    The pieces of IDs stand alone, so that an ID becomes three tokens, of which the second tells it from others.
    """
    texts = [image.description for _, image in shown] + [product.title for product, _ in shown]
    rng = Random(0)
    texts += [converse(product.kind, image.look, False, rng) for product, image in shown]
    prompts = [TEMPLATES["distillation"], *TEMPLATES["recommendation"].values()]
    return [*texts, *(3 * prompts), "\n" + "\n".join(20 * [ID_START, *ID_PIECES, ID_END])]


def tiny_checkpoint(folder: Path, seed: int = 0, size: ToySize = TINY) -> None:
    """Writes the smallest LLaVA-v1.6 of all, untrained, in about a second: what the tests run on."""
    tokenizer = train_tokenizer(TINY_TEXTS, max_tokens=256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(tokenizer, size)
    save_checkpoint(folder, model, new_processor(tokenizer, size))
