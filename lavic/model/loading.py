"""Loads a LLaVA from a hub name or a directory, in the dtype that the device is good at.

A LLaVA is what transformers builds as LLaVA-1.5 (`llava`) or LLaVA-1.6 (`llava_next`): a vision tower, a projector and
any language model. Which language model it is makes no difference here.
"""

import logging
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from lavic.errors import UserError
from lavic.files.hub import local_folder, require_model
from lavic.model.adapters.names import Renaming
from lavic.model.base_model import BaseModel as BaseModel
from lavic.model.base_model import Dtype as Dtype
from lavic.model.checkpoint_files import stored_tensors
from lavic.model.loading_progress import telling
from lavic.model.quantization import keep_differentiable, nf4

log = logging.getLogger(__name__)

Llava: TypeAlias = LlavaForConditionalGeneration | LlavaNextForConditionalGeneration
AnyLlavaConfig: TypeAlias = LlavaConfig | LlavaNextConfig
ARCHITECTURES = {LlavaConfig: LlavaForConditionalGeneration, LlavaNextConfig: LlavaNextForConditionalGeneration}


def load_config(name: str) -> AnyLlavaConfig:
    """The checkpoint's configuration, without its weights.

    Raises:
        UserError: there is none under that name, or it is not a LLaVA's.
    """
    require_model(name)
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"No model configuration could be loaded from '{name}' ({reason}).") from None
    if type(config) not in ARCHITECTURES:
        raise UserError(
            f"'{name}' is a {config.model_type} checkpoint, not llava_next or llava; give LLaVA-v1.6,"
            " such as llava-hf/llava-v1.6-mistral-7b-hf, or LLaVA-1.5."
        )
    return config


def load_llava(base: BaseModel, device: torch.device) -> Llava:
    """Loads the weights onto `device`, in evaluation mode and frozen.

    Raises:
        UserError: the checkpoint is missing, is not a LLaVA, or lacks weights; or bitsandbytes is not installed.
    """
    architecture = ARCHITECTURES[type(load_config(base.name))]
    options: dict[str, Any] = {"dtype": resolve_dtype(base.dtype, device), "device_map": {"": device}}
    if in_4_bits(base, device):
        options["quantization_config"] = nf4(options["dtype"])
    try:
        with telling(base.name):
            llava, report = architecture.from_pretrained(
                base.name, output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True, **options
            )
    except ImportError as error:
        raise UserError(f"quantization: {base.quantization} needs another package: {error}") from None
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"The weights of '{base.name}' could not be loaded ({reason}).") from None
    if report["missing_keys"]:
        example = sorted(report["missing_keys"])[0]
        raise UserError(
            f"'{base.name}' lacks {len(report['missing_keys'])} of its architecture's weights, {example} among them;"
            " give a whole checkpoint."
        )
    if report["mismatched_keys"]:
        name, found, expected = sorted(report["mismatched_keys"])[0]
        raise UserError(
            f"The weights of '{base.name}' do not fit its config.json: {name} is {list(found)}, not {list(expected)};"
            " give a whole checkpoint."
        )
    keep_differentiable(llava)
    llava.requires_grad_(False).eval()
    return llava


def check_weights(name: str, llava: Llava) -> None:
    """Compares what a checkpoint's files hold, by their headers, with what its configuration needs.

    Args:
        name: the checkpoint's directory or hub name.
        llava: the model of its configuration, on the meta device.

    Raises:
        UserError: a file is missing or cut short, or a weight is missing or of another shape.
    """
    folder = local_folder(name)
    stored = stored_tensors(folder) if folder else {}
    if not stored:
        return  # not fetched yet; loading says what is missing
    found = Renaming(llava).find_all(stored)
    wanted = {parameter: tuple(value.shape) for parameter, value in llava.named_parameters(remove_duplicate=False)}
    there = {parameter for parameter in found.values() if parameter in wanted}
    tied = {id(value) for parameter, value in llava.named_parameters(remove_duplicate=False) if parameter in there}
    missing = [key for key, value in llava.named_parameters(remove_duplicate=False) if id(value) not in tied]
    if missing:
        raise UserError(
            f"'{name}' lacks {len(missing)} of its architecture's weights, {min(missing)} among them; give a whole"
            " checkpoint."
        )
    for key, parameter in found.items():
        if parameter in wanted and stored[key].shape != wanted[parameter]:
            raise UserError(
                f"The weights of '{name}' do not fit its config.json: {parameter} is {list(stored[key].shape)}, not"
                f" {list(wanted[parameter])}; give a whole checkpoint."
            )


def build_on_meta(config: AnyLlavaConfig) -> Llava:
    """The model's structure without any weight: for counting."""
    with torch.device("meta"):
        llava = ARCHITECTURES[type(config)](config)
    return llava.requires_grad_(False)


def in_4_bits(base: BaseModel, device: torch.device) -> bool:
    """Whether the language model's weights are held in NF4 on a device."""
    if base.quantization == "auto" and device.type == "cpu":
        log.info("On a CPU: quantization is switched off, and weights are float32 where dtype is auto.")
    return base.quantization == "nf4" or (base.quantization == "auto" and device.type != "cpu")


def resolve_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """What `auto` means on a device.

    Raises:
        UserError: the device does not compute in that dtype.
    """
    if dtype == "float16" and device.type == "cpu":
        raise UserError("base.dtype is float16, which a CPU does not train in; give auto, float32 or bfloat16.")
    if dtype != "auto":
        resolved: torch.dtype = getattr(torch, dtype)
        return resolved
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def fit_embeddings(llava: Llava, vocabulary: int) -> None:
    """Gives every token a row of the embedding matrix; the real checkpoint has enough free ones (32,064 > 32,007)."""
    rows = llava.get_input_embeddings().weight.shape[0]
    if vocabulary > rows:
        if llava.device.type != "meta":  # where it is only looked at
            log.warning("The embedding matrix grows from %d to %d rows for the placeholders.", rows, vocabulary)
        llava.resize_token_embeddings(vocabulary, mean_resizing=False)
        llava.requires_grad_(False)
