"""LLaVA-1.5 at toy size: one view an image, whose patches the language model reads; the real classes and processor.

It has read and seen nothing yet, except that its vision tower's first layer is fitted to the patches of drawn images:
a few hundred steps are then enough to learn the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
)
from transformers.utils import logging as transformers_logging

from lavic.demo.pretraining import begin_language, fit_patch_embedding
from lavic.demo.toy_tokenizer import IMAGE_TOKEN, train_tokenizer
from lavic.model.chat_forms import MISTRAL

SIDE, PATCH = 168, 28
VISION_WIDTH, VISION_LAYERS = 96, 3  # LLaVA reads the layer before the last
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 128, 3, 4
VOCABULARY = 600


def build_1_5(folder: Path, texts: Sequence[str], images: Sequence[Image.Image], seed: int = 0) -> None:
    """Writes a toy LLaVA-1.5, in the real checkpoint's form, to `folder`.

    Args:
        folder: receives the checkpoint.
        texts: what its tokenizer learns its words from.
        images: what its patch embedding is fitted to; some fifty are enough.
        seed: of its weights.
    """
    tokenizer = train_tokenizer(texts, max_tokens=VOCABULARY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llava = _model(tokenizer)
        begin_language(llava)
        processor = _processor(tokenizer)
        pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        fit_patch_embedding(llava.model.vision_tower.embeddings.patch_embedding, pixels)
    folder.mkdir(parents=True, exist_ok=True)
    transformers_logging.disable_progress_bar()
    llava.save_pretrained(folder)
    processor.save_pretrained(folder)


def _model(tokenizer: LlamaTokenizer) -> LlavaForConditionalGeneration:
    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=VISION_WIDTH // 32,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=VISION_WIDTH,
    )
    text = MistralConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=TEXT_WIDTH,
        intermediate_size=3 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS,
        num_key_value_heads=TEXT_HEADS // 2,
        max_position_embeddings=4096,
        sliding_window=None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    image_token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return LlavaForConditionalGeneration(config)


def _processor(tokenizer: LlamaTokenizer) -> LlavaProcessor:
    image_processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=MISTRAL.template,
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
    )
