"""An adapter's directory: PEFT's files, the processor and a model card, so that it works by itself.

A directory is written beside its final place and then swapped with it, so that a reader never sees half of one and
a run killed at any moment leaves the old one or the new one.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import ProcessorMixin

from lavic.files import write_text
from lavic.files.folders import flush_folder, put_in_place
from lavic.model.adapters.full_parts import full_state, load_full_parts, save_full_parts
from lavic.model.adapters.metadata import AdapterMetadata, modes_of, write_metadata
from lavic.model.adapters.saved_adapter import WEIGHTS, SavedAdapter, read_saved_adapter
from lavic.model.checkpoint_files import checkpoint_hash
from lavic.model.loading import Llava
from lavic.model.parts import TrainableParts, unfreeze, unwrap


def save_adapter(
    model: PeftModel | Llava,
    processor: ProcessorMixin,
    folder: Path,
    card: str,
    adapter: str = "default",
    state: dict[str, Tensor] | None = None,
    task: str | None = None,
) -> None:
    """Puts what was trained of `model`, with its processor and model card, into `folder`, replacing what was there.

    Args:
        model: with one or more adapters, or with parts trained in full, or both.
        processor: saved beside them.
        folder: the adapter's directory.
        card: the text of README.md.
        adapter: which of PEFT's adapters to save.
        state: the weights, by the model's names, where the model holds only a part of each (FSDP2).
        task: the task's name, so that the adapter is not taken for another task's.
    """
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(beside, selected_adapters=[adapter], state_dict=state, save_embedding_layers=False)
    if adapter != "default" and (beside / adapter).is_dir():  # PEFT's folder for adapters of another name
        for file in (beside / adapter).iterdir():
            file.replace(beside / file.name)
        (beside / adapter).rmdir()
    full = full_state(model, state)
    save_full_parts(beside, full)
    lora = [n for n, m in unwrap(model).named_modules() if isinstance(m, LoraLayer) and adapter in m.lora_A]
    base = str(unwrap(model).name_or_path)
    write_metadata(beside, AdapterMetadata(task, modes_of(lora, full), base, checkpoint_hash(base) or None))
    processor.save_pretrained(beside)
    write_text(beside / "README.md", card)
    _make_readable(beside)
    flush_folder(beside)
    put_in_place(beside, folder)


def load_adapter(
    llava: Llava,
    folder: Path,
    trainable: bool,
    adapter: str = "default",
    task: str | None = None,
    parts: TrainableParts | None = None,
    any_base: bool = False,
) -> PeftModel | Llava:
    """Puts a saved adapter, and the parts trained in full beside it, into LLaVA.

    Args:
        llava: the base, without adapters.
        folder: an adapter's directory, of this or an older release.
        trainable: whether it is trained on; its parts in full mode then become float32.
        adapter: PEFT's name for it.
        task: whose adapter it has to be; null takes any.
        parts: how its parts have to have been trained; null takes any.
        any_base: whether it may have been trained on other weights.

    Returns:
        The PEFT model; LLaVA itself where no part has LoRA.

    Raises:
        UserError: `folder` holds no adapter, an unreadable one, or one of another base, task or parts.
    """
    return put_in(llava, read_saved_adapter(llava, folder, task, parts, any_base), trainable, adapter)


def put_in(model: PeftModel | Llava, saved: SavedAdapter, trainable: bool, adapter: str) -> PeftModel | Llava:
    """Puts a checked adapter into LLaVA, or into a model that has other adapters already."""
    if saved.config is not None:
        model = _put_lora_in(model, saved, trainable, adapter)
    llava = unwrap(model)  # after PEFT, which freezes all that is not LoRA
    load_full_parts(llava, saved.folder, trainable)
    if saved.whole:
        parameters = dict(llava.named_parameters(remove_duplicate=False))
        if trainable:
            unfreeze(llava, list(saved.whole.values()))
        with torch.no_grad(), safe_open(saved.folder / WEIGHTS, framework="pt") as file:
            for name, place in saved.whole.items():
                parameters[place].copy_(file.get_tensor(name))
    return model


def _put_lora_in(model: PeftModel | Llava, saved: SavedAdapter, trainable: bool, adapter: str) -> PeftModel:
    with TemporaryDirectory() as renamed:
        source = saved.folder
        if not saved.as_it_is:
            assert saved.config is not None
            source = Path(renamed)
            weights = load_file(saved.folder / WEIGHTS)
            save_file({new: weights[name] for name, new in saved.lora.items()}, source / WEIGHTS, {"format": "pt"})
            saved.config.save_pretrained(renamed)
        if isinstance(model, PeftModel):
            model.load_adapter(str(source), adapter_name=adapter, is_trainable=trainable)
            return model
        return PeftModel.from_pretrained(model, str(source), adapter_name=adapter, is_trainable=trainable)


def _make_readable(folder: Path) -> None:
    """Gives every file the mode of one that is written plainly; safetensors writes for the owner alone."""
    mode = (folder / "README.md").stat().st_mode
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
