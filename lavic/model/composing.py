"""A LLaVA from a vision tower and a language model: the two as they are, and a new projector between them.

Any language model serves that transformers builds as layers over `embed_tokens`, with a plain output head; any vision
tower that gives a row of hidden states for an image. Both are asked for what they can do, not for their names.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
)

from lavic.errors import UserError
from lavic.files.hub import require_model
from lavic.model.base_model import Architecture as Architecture
from lavic.model.base_model import ComposedDtype
from lavic.model.loading import Llava, build_on_meta
from lavic.model.parts import PARTS, part_of
from lavic.model.processor import LlavaAnyProcessor
from lavic.model.templates import Template, template_for
from lavic.model.unread_parameters import extra_positions
from lavic.model.views import native_grids

IMAGE_TOKEN = "<image>"


@dataclass(frozen=True)
class Composed:
    """What `compose` has written.

    Args:
        folder: the checkpoint.
        parameters: their number, by part.
        image_token_id: of `<image>`.
        rows: of the embedding matrix.
        template: the chat template's name.
    """

    folder: Path
    parameters: dict[str, int]
    image_token_id: int
    rows: int
    template: str


def compose(
    vision: str,
    language: str,
    out: Path,
    architecture: Architecture = "llava",
    dtype: ComposedDtype = "auto",
    seed: int = 0,
) -> Composed:
    """Writes one directory that `AutoModelForImageTextToText` and `AutoProcessor` load.

    Args:
        vision: hub name or directory of the vision tower, such as CLIP's.
        language: hub name or directory of the language model.
        out: the new directory.
        architecture: `llava` is LLaVA-1.5, one view an image; `llava_next` LLaVA-1.6, several.
        dtype: of all weights; `auto` is the language model's.
        seed: of the projector, and of LLaVA-1.6's newline.

    Raises:
        UserError: `out` exists, or one of the two is missing, broken or of a kind that does not serve.
    """
    if out.exists():
        raise UserError(f"{out} exists already; give --out a directory that does not, or remove it.")
    vision_config, text_config = _config("vision", vision), _config("language", language)
    config = _llava_config(architecture, vision, vision_config, language, text_config)
    tokenizer = _tokenizer(language)
    template = template_for(tokenizer)
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    config.image_token_index = config.image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))

    lm = _weights("language", language, AutoModelForCausalLM.from_pretrained, dtype)
    llava = _frame(config, language, lm)
    tower = _weights("vision", vision, type(llava.model.vision_tower).from_pretrained, lm.dtype)
    llava.model.vision_tower = tower
    llava.model.language_model, llava.lm_head = lm.base_model, lm.get_output_embeddings()
    _new_weights(llava, lm.dtype, seed)
    _same_text(llava.eval(), lm.eval(), language)
    _grow(llava, len(tokenizer))
    _stop(llava, lm, tokenizer, template)
    processor = _processor(config, vision, tokenizer, template)
    _write(out, llava, processor)
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in llava.named_parameters():
        counts[part_of(name)] += parameter.numel()
    rows = int(llava.get_input_embeddings().weight.shape[0])
    return Composed(out, counts, config.image_token_id, rows, template.name)


def _config(which: str, name: str) -> PretrainedConfig:
    require_model(name, f"{which} model")
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"No {which} model's configuration could be loaded from '{name}' ({_line(error)}).") from None


def _llava_config(
    architecture: Architecture, vision: str, whole: PretrainedConfig, language: str, text: PretrainedConfig
) -> LlavaConfig | LlavaNextConfig:
    tower = getattr(whole, "vision_config", whole)
    side, patch = getattr(tower, "image_size", None), getattr(tower, "patch_size", None)
    if not (isinstance(side, int) and isinstance(patch, int) and side % patch == 0):
        raise UserError(
            f"'{vision}' is a {whole.model_type}, which cuts no square image into square patches; give a vision tower"
            " such as CLIP's."
        )
    if not hasattr(text, "vocab_size"):
        raise UserError(f"'{language}' is a {text.model_type}, which has no vocabulary; give a language model.")
    if hasattr(text, "vision_config"):
        raise UserError(f"'{language}' is a {text.model_type}, which has vision already; give a text-only model.")
    made: dict[str, Any] = {
        "vision_config": tower,
        "text_config": text,
        "vision_feature_layer": -2,
        "tie_word_embeddings": bool(text.tie_word_embeddings),
        "image_seq_length": (side // patch) ** 2,
    }
    if architecture == "llava_next":
        config: LlavaConfig | LlavaNextConfig = LlavaNextConfig(**made, image_grid_pinpoints=native_grids(side))
    else:
        config = LlavaConfig(**made)
    config.vision_feature_select_strategy = "default" if extra_positions(config) else "full"
    return config


def _tokenizer(language: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(language)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"No tokenizer could be loaded from '{language}' ({_line(error)}).") from None
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer of '{language}' has no fast form (tokenizer.json); give a model with one.")
    if set(tokenizer.encode("Words", add_special_tokens=False)) <= {tokenizer.unk_token_id}:
        raise UserError(f"The tokenizer of '{language}' has no vocabulary; give a model with its tokenizer's files.")
    if tokenizer.pad_token is None:  # attention is masked by lengths, so any token serves
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def _weights(which: str, name: str, load: Callable[..., Any], dtype: ComposedDtype | torch.dtype) -> PreTrainedModel:
    try:
        model, report = load(
            name, output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True, dtype=dtype
        )
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"The {which} model's weights could not be loaded from '{name}' ({_line(error)}).") from None
    wrong = sorted(report["missing_keys"]) or sorted(key[0] for key in report["mismatched_keys"])
    if wrong:
        raise UserError(
            f"The {which} model '{name}' has no weights that fit its config.json for {len(wrong)} names, as {wrong[0]};"
            " give a whole checkpoint."
        )
    return model


def _frame(config: LlavaConfig | LlavaNextConfig, language: str, lm: PreTrainedModel) -> Llava:
    """LLaVA without weights, if the language model fits into it."""
    head = lm.get_output_embeddings()
    reason = None
    try:
        llava = build_on_meta(config)
        if type(llava.model.language_model) is not type(lm.base_model):
            reason = f"its core is a {type(lm.base_model).__name__}"
        elif not isinstance(getattr(llava.model.language_model, "embed_tokens", None), nn.Embedding):
            reason = "it has no embed_tokens"
        elif not isinstance(head, nn.Linear) or head.bias is not None:
            reason = "its output head is no plain Linear"
    except AttributeError as error:
        reason = str(error)
    if reason:
        raise UserError(
            f"'{language}' is a {lm.config.model_type}, which LLaVA cannot take as language model ({reason}); give one"
            " such as Llama, Mistral, Qwen2, Gemma 3 or Phi 3."
        )
    return llava


def _new_weights(llava: Llava, dtype: torch.dtype, seed: int) -> None:
    """A projector as PyTorch begins Linears, and a newline of the size of an embedding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = llava.model.multi_modal_projector.to_empty(device="cpu").float()
        for module in projector.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        projector.to(dtype)
        if hasattr(llava.model, "image_newline"):
            width = llava.config.text_config.hidden_size
            llava.model.image_newline = nn.Parameter((torch.randn(width) / width**0.5).to(dtype))


@torch.no_grad()
def _same_text(llava: Llava, lm: PreTrainedModel, language: str) -> None:
    """Refuses a model that does more to its logits than LLaVA will."""
    ids = torch.arange(16)[None] % lm.get_input_embeddings().weight.shape[0]
    if not torch.equal(llava(input_ids=ids).logits, lm(input_ids=ids).logits):
        raise UserError(
            f"'{language}' is a {lm.config.model_type}, whose logits are no plain product with its output head, as they"
            " would be in LLaVA; give another language model."
        )


def _grow(llava: Llava, vocabulary: int) -> None:
    """Gives new tokens the mean row; a matrix with rows to spare stays as it is."""
    rows = llava.get_input_embeddings().weight.shape[0]
    if vocabulary <= rows:
        return
    llava.resize_token_embeddings(vocabulary, mean_resizing=False)
    matrices = {id(m.weight): m.weight for m in (llava.get_input_embeddings(), llava.get_output_embeddings())}
    with torch.no_grad():
        for weight in matrices.values():
            weight[rows:] = weight[:rows].float().mean(dim=0).to(weight.dtype)


def _stop(llava: Llava, lm: PreTrainedModel, tokenizer: Any, template: Template) -> None:
    """The language model's way to generate; an answer's end token always ends it."""
    llava.generation_config = lm.generation_config
    known = lm.generation_config.eos_token_id
    ends = [known] if isinstance(known, int) else list(known or [])
    end = tokenizer.convert_tokens_to_ids(template.end.format(eos=tokenizer.eos_token))
    if end not in ends:
        ends.append(int(end))
    llava.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    if llava.generation_config.pad_token_id is None:
        llava.generation_config.pad_token_id = tokenizer.pad_token_id


def _processor(
    config: LlavaConfig | LlavaNextConfig, vision: str, tokenizer: Any, template: Template
) -> LlavaAnyProcessor:
    try:
        given = AutoImageProcessor.from_pretrained(vision)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"No image processor could be loaded from '{vision}' ({_line(error)}).") from None
    side = config.vision_config.image_size
    options: dict[str, Any] = {
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": given.image_mean,
        "image_std": given.image_std,
        "rescale_factor": given.rescale_factor,
        "resample": given.resample,
    }
    tokens: dict[str, Any] = {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": extra_positions(config),
        "chat_template": template.jinja(),
        "image_token": IMAGE_TOKEN,
    }
    if isinstance(config, LlavaNextConfig):
        views = LlavaNextImageProcessor(**options, image_grid_pinpoints=config.image_grid_pinpoints)
        return LlavaNextProcessor(image_processor=views, tokenizer=tokenizer, **tokens)
    return LlavaProcessor(image_processor=LlavaImageProcessor(**options, do_pad=True), tokenizer=tokenizer, **tokens)


def _write(out: Path, llava: Llava, processor: LlavaAnyProcessor) -> None:
    """Writes beside and renames, so that `out` is whole or is not there."""
    beside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        llava.save_pretrained(beside)
        processor.save_pretrained(beside)
        mode = (beside / "config.json").stat().st_mode
        for path in beside.rglob("*.safetensors"):  # written for the owner alone
            path.chmod(mode)
        beside.rename(out)
    except OSError as error:
        raise UserError(f"{out} could not be written ({error.strerror or error}); give another --out.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
