"""An adapter's directory: PEFT's files, the processor and a model card, so that it works by itself.

A directory is written beside its final place and then swapped with it, so that a reader never sees half of one and
a run killed at any moment leaves the old one or the new one.
"""

import ctypes
import os
import shutil
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from lavic.errors import UserError
from lavic.files import write_text
from lavic.json_entries import read_json

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux's renameat2(2)


def save_adapter(
    model: PeftModel,
    processor: LlavaNextProcessor,
    folder: Path,
    card: str,
    adapter: str = "default",
    state: dict[str, Tensor] | None = None,
) -> None:
    """Puts one adapter of `model`, with its processor and model card, into `folder`, replacing what was there.

    `state` gives the weights where the model holds only a part of each (FSDP2).
    """
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    model.save_pretrained(beside, selected_adapters=[adapter], state_dict=state)
    if adapter != "default":  # PEFT puts adapters of another name into a folder of that name
        for file in (beside / adapter).iterdir():
            file.replace(beside / file.name)
        (beside / adapter).rmdir()
    processor.save_pretrained(beside)
    write_text(beside / "README.md", card)
    _flush(beside)
    _put_in_place(beside, folder)


def load_adapter(
    llava: LlavaNextForConditionalGeneration, folder: Path, trainable: bool, adapter: str = "default"
) -> PeftModel:
    """Wraps LLaVA with a saved adapter.

    Raises:
        UserError: `folder` holds no adapter, or one that was made for another base model.
    """
    check_adapter(llava, folder)
    return PeftModel.from_pretrained(llava, str(folder), adapter_name=adapter, is_trainable=trainable)


def check_adapter(llava: LlavaNextForConditionalGeneration, folder: Path) -> None:
    """Raises a UserError unless every weight of the adapter in `folder` has its place in this model.

    PEFT itself only warns about weights that are missing or left over, and goes on with random ones.
    """
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not (weights.is_file() and config.is_file()):
        raise UserError(
            f"{folder} holds no adapter (adapter_config.json and adapter_model.safetensors); give one that does."
        )
    try:
        base = read_json(config).get("base_model_name_or_path")
        with safe_open(weights, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (AttributeError, UserError, SafetensorError) as error:
        raise UserError(f"The adapter in {folder} cannot be read ({error}); save it again.") from None
    modules = dict(llava.named_modules())
    for name, shape in shapes.items():
        owner, _, kind = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
        if not owner:
            continue  # a part that is trained whole
        linear = modules.get(owner)
        fits = isinstance(linear, nn.Linear) and (
            shape[1] == linear.in_features if kind == "A" else shape[0] == linear.out_features
        )
        if not fits:
            raise UserError(
                f"The adapter in {folder} was made for another base model ('{base}'):"
                f" its weight {name} of shape {list(shape)} has no place in '{llava.name_or_path}'."
            )
    adapted = PeftConfig.from_pretrained(str(folder))
    for name, module in modules.items():
        expected = f"base_model.model.{name}.lora_A.weight"
        if isinstance(module, nn.Linear) and check_target_module_exists(adapted, name) and expected not in shapes:
            raise UserError(
                f"The adapter in {folder} was made for another base model ('{base}'):"
                f" it has no weights for {name} of '{llava.name_or_path}'."
            )


def _flush(folder: Path) -> None:
    """Makes sure that all of a folder is on the disk before it gets its final name."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(new: Path, final: Path) -> None:
    if not final.exists():
        new.rename(final)
        return
    if not _exchange(new, final):  # no such call on this system: the name is free for an instant
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        new.rename(final)
        new = old
    shutil.rmtree(new)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two directories in one step, where the system can."""
    renameat2: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
