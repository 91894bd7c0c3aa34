"""What `python -m benchmarks peers` trains and on what: a small LLaVA of real proportions, made-up conversations.

Of LLaVA-1.5-7B the language model takes nearly all the work of a step, the tower 1.6% and the output head 2%; so here.
An image is 576 tokens. LLaVA-1.6 cuts it into five views; they are half as wide here, so that an image is 744 tokens
and not 2,928. Conversations have the turns and lengths of LLaVA-Instruct-150K: a third of several short
questions, the others of one with a long answer; 6% are about no image, as of LLaVA's mix of 665k.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
)

from benchmarks.workload import write_images
from lavic.demo.toy_tokenizer import IMAGE_TOKEN, train_tokenizer
from lavic.model.templates import TEMPLATES

WIDTH, LAYERS = 768, 2
SIDE, PATCH, TOWER_WIDTH, TOWER_LAYERS = 336, 14, 128, 3
TEXT_ALONE = 16  # of so many records one
WORDS = [first + vowel + last for first in "bcdfghklmnprst" for vowel in "aeiou" for last in "nrst"]


def write(folder: Path, count: int, text_alone: bool, views: bool, toy: bool) -> Path:
    """`base/`, `images/` and `train.json` with `count` records in `folder`; returns the path of the last.

    Args:
        folder: receives them.
        count: records.
        text_alone: some have no image.
        views: the checkpoint is a LLaVA-1.6, which cuts images into views.
        toy: of small images and a narrow model.
    """
    rng = Random(0)
    records = [record(number, text_alone, rng) for number in range(count)]
    (folder / "train.json").write_text(json.dumps(records), encoding="utf-8")
    (folder / "images").mkdir()
    write_images(folder / "images", count, side=160 if toy else 640)
    write_checkpoint(folder / "base", 64 if toy else WIDTH, views)
    return folder / "train.json"


def record(number: int, text_alone: bool, rng: Random) -> dict[str, Any]:
    """One of LLaVA's form; with `text_alone` some have no image."""
    seen = not text_alone or number % TEXT_ALONE != TEXT_ALONE - 1
    turns = list(_turns(rng, seen))
    image = {"image": f"{number}.jpg"} if seen else {}
    return {"id": f"{number:06d}", **image, "conversations": turns}


def _turns(rng: Random, seen: bool) -> Iterator[dict[str, str]]:
    several = rng.random() < 0.37
    for place in range(rng.randint(3, 5) if several else 1):
        question = _text(rng, rng.randint(7, 14))
        yield {"from": "human", "value": f"<image>\n{question}" if seen and not place else question}
        yield {"from": "gpt", "value": _text(rng, rng.randint(6, 40) if several else rng.randint(80, 220))}


def _text(rng: Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words)).capitalize() + "."


def write_checkpoint(folder: Path, width: int, views: bool) -> None:
    """A LLaVA of random weights in the real one's form, with its processor."""
    tokenizer = train_tokenizer([" ".join(WORDS)] * 4, max_tokens=500)
    side = SIDE // 2 if views else SIDE
    vision = CLIPVisionConfig(
        hidden_size=TOWER_WIDTH, intermediate_size=4 * TOWER_WIDTH, num_hidden_layers=TOWER_LAYERS,
        num_attention_heads=TOWER_WIDTH // 32, image_size=side, patch_size=PATCH,
    )  # fmt: skip
    text = MistralConfig(
        hidden_size=width, intermediate_size=11 * width // 4, num_hidden_layers=LAYERS,
        num_attention_heads=width // 32, num_key_value_heads=width // 32, vocab_size=-(-len(tokenizer) // 64) * 64,
        sliding_window=None, max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    shared = {
        "vision_config": vision, "text_config": text,
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "image_seq_length": (side // PATCH) ** 2,
    }  # fmt: skip
    cut: dict[str, Any] = {
        "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}, "do_pad": True
    }  # fmt: skip
    torch.manual_seed(0)
    if views:
        shapes = [[side * rows, side * columns] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]
        LlavaNextForConditionalGeneration(LlavaNextConfig(**shared, image_grid_pinpoints=shapes)).save_pretrained(
            folder
        )
        images: Any = LlavaNextImageProcessor(**cut, image_grid_pinpoints=shapes)
    else:
        LlavaForConditionalGeneration(LlavaConfig(**shared)).save_pretrained(folder)
        images = LlavaImageProcessor(**cut)
    (LlavaNextProcessor if views else LlavaProcessor)(
        image_processor=images, tokenizer=tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        chat_template=TEMPLATES["mistral"].jinja(), image_token=IMAGE_TOKEN, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
