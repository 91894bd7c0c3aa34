"""LLaVA-1.5 at toy size: one view an image, whose patches the language model reads; the real classes and processor.

Its vision tower and projector have learned to name what an image shows, as CLIP and LLaVA's first stage have; its
language model has read nothing yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
)
from transformers.utils import logging as transformers_logging

from lavic.demo.pretraining import begin_language, embed_pixels, optimizer_steps, run_tower
from lavic.demo.products import COLOURS, FORMS, PATTERNS, Look
from lavic.demo.toy_configs import clip_config, cut_options, text_options
from lavic.demo.toy_tokenizer import IMAGE_TOKEN, train_tokenizer
from lavic.model.templates import TEMPLATES

SIDE, PATCH = 168, 28
VISION_WIDTH, VISION_LAYERS = 96, 3  # LLaVA reads the layer before the last
TEXT_WIDTH, TEXT_LAYERS = 128, 3
VOCABULARY = 600
NAMING_STEPS, NAMING_BATCH = 200, 48

BACKGROUND_WORDS = {"wood": "wooden", "grass": "grass", "stone": "stone", "sand": "sand", "slate": "slate"}


def build_1_5(
    folder: Path, texts: Sequence[str], images: Sequence[Image.Image], looks: Sequence[Look], seed: int = 0
) -> None:
    """Writes a toy LLaVA-1.5, in the real checkpoint's form, to `folder`.

    Args:
        folder: receives the checkpoint.
        texts: what its tokenizer learns its words from.
        images: P images that it has seen.
        looks: what they show.
        seed: of its weights and of the order.
    """
    tokenizer = train_tokenizer(texts, max_tokens=VOCABULARY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llava = _model(tokenizer)
        begin_language(llava.model.language_model, llava.lm_head, llava.model.multi_modal_projector)
        processor = _processor(tokenizer)
        pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        learn_to_name(llava, tokenizer, pixels, looks)
    folder.mkdir(parents=True, exist_ok=True)
    transformers_logging.disable_progress_bar()
    llava.save_pretrained(folder)
    processor.save_pretrained(folder)


def learn_to_name(
    llava: LlavaForConditionalGeneration, tokenizer: LlamaTokenizer, pixels: Tensor, looks: Sequence[Look]
) -> None:
    """Trains tower and projector: an image's visual tokens, read as words, name what it shows.

    Args:
        llava: the model, after `begin_language`.
        tokenizer: has a token for each of these words.
        pixels: (P, 3, S, S), normalised.
        looks: P looks; the labels.
    """
    tower, language = llava.model.vision_tower, llava.model.language_model
    patches = embed_pixels(tower, pixels)
    kinds = [COLOURS, PATTERNS, FORMS, tuple(BACKGROUND_WORDS.values())]
    ids = [torch.tensor([tokenizer.convert_tokens_to_ids("▁" + word) for word in words]) for words in kinds]
    named = [(look.colour, look.pattern, look.form, BACKGROUND_WORDS[look.background]) for look in looks]
    labels = torch.tensor([[words.index(word) for words, word in zip(kinds, four, strict=True)] for four in named])
    tower.embeddings.patch_embedding.requires_grad_(False)
    parameters = [
        p for part in (tower, llava.model.multi_modal_projector) for p in part.parameters() if p.requires_grad
    ]
    for optimizer in optimizer_steps(parameters, NAMING_STEPS):
        picked = torch.randint(len(patches), (NAMING_BATCH,))
        seen = run_tower(tower, patches[picked])[-2][:, 1:]
        read = llava.lm_head(language.norm(llava.model.multi_modal_projector(seen).mean(dim=1)))
        losses = [nn.functional.cross_entropy(read[:, ids[k]], labels[picked, k]) for k in range(len(kinds))]
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum())
        optimizer.step()
    tower.embeddings.patch_embedding.requires_grad_(True)


def _model(tokenizer: LlamaTokenizer) -> LlavaForConditionalGeneration:
    vision = clip_config(SIDE, PATCH, VISION_WIDTH, VISION_LAYERS)
    text = MistralConfig(**text_options(tokenizer, TEXT_WIDTH, TEXT_LAYERS), sliding_window=None)
    image_token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return LlavaForConditionalGeneration(config)


def _processor(tokenizer: LlamaTokenizer) -> LlavaProcessor:
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(**cut_options(SIDE)),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATES["mistral"].jinja(),
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
    )
