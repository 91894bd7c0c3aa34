"""`full_parts.safetensors`: the parts of LLaVA that were trained in full, beside the adapter of those with LoRA.

Its names are LLaVA's own, so plain transformers loads it, before PEFT puts the adapter in:

    llava = LlavaNextForConditionalGeneration.from_pretrained(base)
    llava.load_state_dict(safetensors.torch.load_file(f"{folder}/full_parts.safetensors"), strict=False)
    llava = PeftModel.from_pretrained(llava, folder)  # only where there is an adapter_config.json
"""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lavic.errors import UserError
from lavic.model.adapters.names import Renaming
from lavic.model.loading import Llava
from lavic.model.parts import unfreeze, unwrap

FULL_PARTS = "full_parts.safetensors"


def full_state(model: PeftModel | Llava, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What is trained in full, by LLaVA's own names; `state` gives whole values by `model`'s names."""
    llava, prefix = unwrap(model), "base_model.model." if isinstance(model, PeftModel) else ""
    trained = {name: p for name, p in llava.named_parameters() if p.requires_grad and ".lora_" not in name}
    trained = {name: p for name, p in trained.items() if ".modules_to_save." not in name}
    return {name: (p if state is None else state[prefix + name]).detach() for name, p in trained.items()}


def save_full_parts(folder: Path, state: dict[str, Tensor]) -> None:
    """Writes the file; nothing where nothing is trained in full."""
    if state:
        save_file({name: value.contiguous() for name, value in state.items()}, folder / FULL_PARTS, {"format": "pt"})


def full_names(llava: Llava, folder: Path) -> dict[str, str]:
    """The file's names and what each is called in this model; empty where there is no file.

    Raises:
        UserError: the file cannot be read, or one of its weights has no place in the model.
    """
    if not (folder / FULL_PARTS).is_file():
        return {}
    shapes = weight_shapes(folder / FULL_PARTS)
    parameters = dict(llava.named_parameters(remove_duplicate=False))
    found: dict[str, str] = {}
    for saved, name in Renaming(llava).find_all(shapes).items():
        if name is None or name not in parameters or tuple(parameters[name].shape) != shapes[saved]:
            raise UserError(
                f"{folder / FULL_PARTS} was made for another base model: its weight {saved} of shape"
                f" {list(shapes[saved])} has no place in '{llava.name_or_path}'."
            )
        found[saved] = name
    return found


def load_full_parts(llava: Llava, folder: Path, trainable: bool) -> None:
    """Puts what `folder` holds of parts trained in full into the model.

    Raises:
        UserError: as `full_names`, or a weight's place is held in 4 bits.
    """
    names = full_names(llava, folder)
    parameters = dict(llava.named_parameters(remove_duplicate=False))
    packed = next((name for name in names.values() if not parameters[name].is_floating_point()), None)
    if packed:
        raise UserError(
            f"{folder / FULL_PARTS} holds {packed}, which is in 4 bits here; load the base with quantization: none."
        )
    if trainable:
        unfreeze(llava, list(names.values()))
    if not names:
        return
    with torch.no_grad(), safe_open(folder / FULL_PARTS, framework="pt") as file:
        for saved, name in names.items():
            parameters[name].copy_(file.get_tensor(saved))


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file's weights.

    Raises:
        UserError: it is no whole safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); save the adapter again.") from None
