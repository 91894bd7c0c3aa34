"""A saved adapter, read and checked against the model that it is to be put into, before anything is changed.

PEFT itself only warns about weights that are missing or left over, and goes on with random ones.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from lavic.errors import UserError
from lavic.files.json_entries import read_json
from lavic.model.adapters.full_parts import FULL_PARTS, full_names, weight_shapes
from lavic.model.adapters.metadata import AdapterMetadata, modes_of, read_metadata, require, require_base
from lavic.model.adapters.names import Renaming
from lavic.model.loading import Llava
from lavic.model.parts import TrainableParts, part_of

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class SavedAdapter:
    """What is in an adapter's directory, by the model's own names.

    Args:
        folder: the directory.
        about: task, parts and base.
        config: PEFT's configuration, adapting exactly `lora`'s modules; None where no part has LoRA.
        lora: the weights of PEFT's file, and what each is called in PEFT's model today.
        whole: weights of that file that are no adapter's: parts trained in full by PEFT's `modules_to_save`.
        as_it_is: whether PEFT reads the directory right by itself.
    """

    folder: Path
    about: AdapterMetadata
    config: LoraConfig | None
    lora: dict[str, str]
    whole: dict[str, str]
    as_it_is: bool


def read_saved_adapter(
    llava: Llava,
    folder: Path,
    task: str | None = None,
    parts: TrainableParts | None = None,
    any_base: bool = False,
) -> SavedAdapter:
    """Reads what `folder` holds and finds a place for each weight in this model, which has no adapter yet.

    Args:
        llava: the model.
        folder: an adapter's directory.
        task: whose adapter it has to be; null takes any.
        parts: how its parts have to have been trained; null takes any.
        any_base: whether it may have been trained on other weights.

    Raises:
        UserError: there is no adapter, it cannot be read, a weight has no place or is missing, or it is another's.
    """
    has_lora = (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()
    if not has_lora and (not (folder / FULL_PARTS).is_file() or (folder / WEIGHTS).exists()):
        raise UserError(f"{folder} holds no adapter ({CONFIG} and {WEIGHTS}); give one that does.")
    full = list(full_names(llava, folder).values())
    known = read_metadata(folder)
    if known is not None and not any_base:
        require_base(folder, known, str(llava.name_or_path))
    if not has_lora:
        about = known or AdapterMetadata(None, modes_of((), full), "unknown")
        require(folder, about, task, parts)
        return SavedAdapter(folder, about, None, {}, {}, as_it_is=True)
    config = _config(folder)
    base = str(config.base_model_name_or_path)
    shapes = weight_shapes(folder / WEIGHTS)
    found = Renaming(llava).find_all({_owner(name) for name in shapes})
    places = {name: _place(llava, folder, base, name, shape, found[_owner(name)]) for name, shape in shapes.items()}
    adapted = {place for name, place in places.items() if ".lora_A." in name}
    if not adapted:
        raise UserError(f"The adapter in {folder} holds no LoRA weights; save it again.")
    whole = {name: place for name, place in places.items() if ".lora_" not in name}
    lora = {name: f"base_model.model.{place}{_rest(name)}" for name, place in places.items() if ".lora_" in name}
    renamed = any(name != new for name, new in lora.items())
    linears = [name for name, module in llava.named_modules() if isinstance(module, nn.Linear)]
    targeted = {name for name in linears if check_target_module_exists(config, name)}
    _complete(llava, folder, base, config, adapted, targeted, renamed)
    if targeted != adapted:
        config.target_modules, config.exclude_modules = adapted, None
    config.modules_to_save = None
    about = known or AdapterMetadata(None, modes_of(adapted, [*full, *whole.values()]), base)
    require(folder, about, task, parts)
    return SavedAdapter(folder, about, config, lora, whole, as_it_is=not renamed and not whole and targeted == adapted)


def _config(folder: Path) -> LoraConfig:
    path = folder / CONFIG
    try:
        kind = read_json(path)["peft_type"]
        config = PeftConfig.from_pretrained(str(folder))
    except (UserError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as PEFT's ({reason}); save the adapter again.") from None
    if not isinstance(config, LoraConfig):
        raise UserError(f"The adapter in {folder} is of PEFT's kind {kind}, not LORA; give a LoRA adapter.")
    return config


def _owner(name: str) -> str:
    """The module that a LoRA weight adapts, and a whole weight's own name, both as saved."""
    return name.partition(".lora_")[0] if ".lora_" in name else name


def _rest(name: str) -> str:
    return "".join(name.partition(".lora_")[1:])


def _place(llava: Llava, folder: Path, base: str, name: str, shape: tuple[int, ...], owner: str | None) -> str:
    """The model's name of what a weight belongs to, if its shape fits there."""
    place: Any = llava
    if owner is not None:
        for step in owner.split("."):
            place = getattr(place, step)
    if ".lora_A." in name:
        fits = isinstance(place, nn.Linear) and shape[1:] == (place.in_features,)
    elif ".lora_B." in name:
        fits = isinstance(place, nn.Linear) and shape[:1] == (place.out_features,)
    else:
        fits = isinstance(place, nn.Parameter) and shape == tuple(place.shape)
    if owner is not None and fits:
        return owner
    if owner is None and base == llava.name_or_path:
        raise UserError(
            f"The adapter in {folder} names a weight {name}, which '{base}' has under no name that this or an older"
            " release of transformers gives it; train the adapter again."
        )
    raise UserError(
        f"The adapter in {folder} was made for another base model ('{base}'):"
        f" its weight {name} of shape {list(shape)} has no place in '{llava.name_or_path}'."
    )


def _complete(
    llava: Llava,
    folder: Path,
    base: str,
    config: LoraConfig,
    adapted: Collection[str],
    targeted: set[str],
    renamed: bool,
) -> None:
    """Raises unless every module that the configuration targets has weights.

    A pattern says exactly which; a list of last names, and any configuration of an older release, may also mean
    modules of parts that had no adapter, since what they are called has changed.
    """
    if renamed or not isinstance(config.target_modules, str):
        touched = {part_of(name) for name in adapted}
        targeted = {name for name in targeted if part_of(name) in touched}
    missing = sorted(targeted - set(adapted))
    if missing and base == llava.name_or_path:
        raise UserError(
            f"The adapter in {folder} is not whole: it has no weights for {len(missing)} modules, {missing[0]} among"
            " them; save it again."
        )
    if missing:
        raise UserError(
            f"The adapter in {folder} was made for another base model ('{base}'):"
            f" it has no weights for {missing[0]} of '{llava.name_or_path}'."
        )
