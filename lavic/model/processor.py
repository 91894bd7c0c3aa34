"""The checkpoint's own processor (tokenizer and image cutting), with LaViC's placeholders added where they are used."""

import logging
from pathlib import Path
from typing import TypeAlias

from tokenizers import AddedToken
from transformers import AutoProcessor, LlavaNextImageProcessor, LlavaNextProcessor, LlavaProcessor

from lavic.errors import UserError
from lavic.model.text import PLACEHOLDERS
from lavic.model.views import Views, native_grids, restrict_grid, view_side

LlavaAnyProcessor: TypeAlias = LlavaProcessor | LlavaNextProcessor


def load_processor(name: str, views: Views = "five") -> LlavaNextProcessor:
    """The processor for class tokens: with the placeholders, cutting an image into `views`.

    A LLaVA-1.5's, which knows one view an image, becomes one that cuts as LLaVA-1.6's does.

    Raises:
        UserError: there is none under that name, or it belongs to another model.
    """
    processor = load_plain_processor(name)
    if isinstance(processor, LlavaProcessor):
        processor = _cutting_views(processor)
    tokenizer = processor.tokenizer
    placeholders = [AddedToken(token, normalized=False, special=True) for token in PLACEHOLDERS]
    tokenizer.add_tokens(placeholders, special_tokens=True)
    restrict_grid(processor.image_processor, views)
    return processor


def load_plain_processor(name: str) -> LlavaAnyProcessor:
    """The processor of a LLaVA-1.5 or LLaVA-1.6 as it was saved.

    Raises:
        UserError: there is none under that name, or it belongs to another model; or its tokenizer is not fast, has no
            end-of-sequence token, or splits the image token.
    """
    if looks_like_path(name) and not Path(name).is_dir():
        raise UserError(f"The model directory {name} does not exist; give a LLaVA-v1.6 directory or a hub name.")
    quiet = logging.getLogger("transformers.tokenization_utils_base")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"No processor could be loaded from '{name}' ({first_line}); give a LLaVA-v1.6 checkpoint."
        ) from None
    finally:
        quiet.setLevel(level)
    if not isinstance(processor, LlavaNextProcessor | LlavaProcessor):
        raise UserError(
            f"'{name}' has a {type(processor).__name__}, not a LlavaNextProcessor or LlavaProcessor;"
            " give a LLaVA-v1.6 (LLaVA-NeXT) or LLaVA-1.5 checkpoint."
        )
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of '{name}' has no fast form (tokenizer.json), which gives the tokens' offsets."
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of '{name}' has no end-of-sequence token, so the target could not be ended.")
    if tokenizer.encode(processor.image_token, add_special_tokens=False) != [processor.image_token_id]:
        raise UserError(
            f"The tokenizer of '{name}' does not know {processor.image_token} as one token; add it, or build the"
            " checkpoint by `python -m lavic compose`."
        )
    return processor


def placeholder_ids(processor: LlavaNextProcessor) -> list[int]:
    """The token ids of `<ItemImageEmb1>` ... `<ItemImageEmb5>`."""
    return [int(i) for i in processor.tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))]


def looks_like_path(name: str) -> bool:
    """Whether a model's name can only mean a local directory (hub names are `owner/name`)."""
    return name.startswith(("/", "./", "../", "~")) or name.count("/") != 1


def _cutting_views(processor: LlavaProcessor) -> LlavaNextProcessor:
    """LLaVA-1.6's processor with what LLaVA-1.5's says of tokens, colours and size."""
    one_view = processor.image_processor
    side = view_side(one_view)
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_mean=one_view.image_mean,
            image_std=one_view.image_std,
            image_grid_pinpoints=native_grids(side),
        ),
        tokenizer=processor.tokenizer,
        patch_size=processor.patch_size,
        vision_feature_select_strategy=processor.vision_feature_select_strategy,
        chat_template=processor.chat_template,
        image_token=processor.image_token,
        num_additional_image_tokens=processor.num_additional_image_tokens,
    )
