"""The checkpoint's own processor (tokenizer and image cutting), with LaViC's placeholders added."""

import logging
from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoProcessor, LlavaNextProcessor

from lavic.errors import UserError
from lavic.model.text import PLACEHOLDERS
from lavic.model.views import Views, restrict_grid


def load_processor(name: str, views: Views = "five") -> LlavaNextProcessor:
    """Loads `LlavaNextProcessor` from a hub name or a directory, adds the placeholders, and sets the views' grid.

    Raises:
        UserError: there is none under that name, or it belongs to another model.
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
    if not isinstance(processor, LlavaNextProcessor):
        raise UserError(
            f"'{name}' has a {type(processor).__name__}, not a LlavaNextProcessor;"
            " give a LLaVA-v1.6 (LLaVA-NeXT) checkpoint."
        )
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of '{name}' has no fast form (tokenizer.json), which gives the tokens' offsets."
        )
    placeholders = [AddedToken(token, normalized=False, special=True) for token in PLACEHOLDERS]
    tokenizer.add_tokens(placeholders, special_tokens=True)
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of '{name}' has no end-of-sequence token, so the target could not be ended.")
    restrict_grid(processor.image_processor, views)
    return processor


def placeholder_ids(processor: LlavaNextProcessor) -> list[int]:
    """The token ids of `<ItemImageEmb1>` ... `<ItemImageEmb5>`."""
    return [int(i) for i in processor.tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))]


def looks_like_path(name: str) -> bool:
    """Whether a model's name can only mean a local directory (hub names are `owner/name`)."""
    return name.startswith(("/", "./", "../", "~")) or name.count("/") != 1
