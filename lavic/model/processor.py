"""The checkpoint's own processor (tokenizer and image cutting), with LaViC's placeholders added where they are used."""

import logging
from pathlib import Path
from typing import TypeAlias

from tokenizers import AddedToken
from transformers import (
    AutoConfig,
    AutoProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PretrainedConfig,
)

from lavic.errors import UserError
from lavic.files.hub import local_folder, require_model
from lavic.model.text import PLACEHOLDERS
from lavic.model.unread_parameters import extra_positions
from lavic.model.views import Views, native_grids, restrict_grid, view_side

STRATEGY = "vision_feature_select_strategy"
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
    require_model(name)
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
    stored = Path(local_folder(name) or name) / "config.json"
    if stored.is_file():  # an adapter's directory has none: its base is compared where both are known
        config = AutoConfig.from_pretrained(stored.parent)
        if hasattr(config, "vision_config"):  # a model of another kind is refused where it is loaded
            check_processor(processor, config, name)
            complete(processor, config)
    return processor


def complete(processor: LlavaAnyProcessor, config: PretrainedConfig) -> None:
    """Tells a processor of the model's patches what older files leave out, so that it counts as the model does."""
    processor.patch_size = config.vision_config.patch_size
    processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    processor.num_additional_image_tokens = extra_positions(config)


def check_processor(processor: LlavaAnyProcessor, config: PretrainedConfig, name: str) -> None:
    """Compares a processor with the model that it is to prepare images and texts for.

    Args:
        processor: as it was saved, with or without LaViC's placeholders.
        config: the model's.
        name: where they are from, for the sentence.

    Raises:
        UserError: images are cut to another size than the vision tower reads, the image token is another, or the
            tokenizer has tokens that the model has no embedding for.
    """
    side, reads = view_side(processor.image_processor), config.vision_config.image_size
    if side != reads:
        raise UserError(
            f"The image processor of '{name}' cuts images to {side} pixels, and its vision tower reads {reads}; give a"
            " checkpoint whose preprocessor_config.json and config.json belong together."
        )
    if processor.image_token_id != config.image_token_index:
        raise UserError(
            f"The tokenizer of '{name}' has {processor.image_token} as token {processor.image_token_id}, and its model"
            f" expects {config.image_token_index}; give a checkpoint whose tokenizer and config.json belong together."
        )
    for what, cut, read in (
        ("patch_size", processor.patch_size, config.vision_config.patch_size),
        (STRATEGY, processor.vision_feature_select_strategy, config.vision_feature_select_strategy),
    ):
        if cut not in (None, read):
            raise UserError(
                f"The processor of '{name}' has the {what} {cut}, and its model {read}; give a checkpoint whose"
                " processor_config.json and config.json belong together."
            )
    layers, depth = config.vision_feature_layer, config.vision_config.num_hidden_layers
    for layer in [layers] if isinstance(layers, int) else layers:
        if not -depth - 1 <= layer <= depth:
            raise UserError(
                f"The config.json of '{name}' reads layer {layer} of its vision tower, which has {depth}; mend its"
                " vision_feature_layer."
            )
    vocabulary = processor.tokenizer.get_vocab()
    last = max(number for token, number in vocabulary.items() if token not in PLACEHOLDERS)
    rows = config.text_config.vocab_size
    if last >= rows:
        raise UserError(
            f"The tokenizer of '{name}' has tokens up to number {last}, and its model embeddings for {rows}; give a"
            " checkpoint whose tokenizer and config.json belong together."
        )


def placeholder_ids(processor: LlavaNextProcessor) -> list[int]:
    """The token ids of `<ItemImageEmb1>` ... `<ItemImageEmb5>`."""
    return [int(i) for i in processor.tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))]


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
