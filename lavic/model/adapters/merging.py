"""Adapters merged into a plain checkpoint, which is read again and compared before it gets its name."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor

from lavic.errors import UserError
from lavic.files import write_text
from lavic.model.adapters.directory import put_in
from lavic.model.adapters.saved_adapter import SavedAdapter, read_saved_adapter
from lavic.model.checks import check_files
from lavic.model.loading import BaseModel, Dtype, Llava, fit_embeddings, load_config, load_llava, resolve_dtype
from lavic.model.parts import unwrap
from lavic.model.processor import load_plain_processor

CPU = torch.device("cpu")
TOLERANCE = 1e-4


def merge_adapters(
    folders: Sequence[Path], base: str, out: Path, dtype: Dtype, card: str, any_base: bool = False
) -> float:
    """Writes a checkpoint that plain transformers loads, with the adapters' updates in its weights.

    The base is read in float32 whatever it was trained over (an NF4 run's too), so that nothing is merged into rounded
    weights, and rounded to `dtype` once.

    Args:
        folders: adapters' directories, in the order in which they were trained.
        base: hub name or directory of the checkpoint that they were trained on.
        out: the new directory.
        dtype: of what is written; `auto` is bfloat16.
        card: the text of README.md.
        any_base: whether the adapters may have been trained on other weights.

    Returns:
        The largest difference of a logit, in float32, between the model with its adapters and the merged one.

    Raises:
        UserError: `out` exists, an adapter is not this base's, or the merged model is not the same.
    """
    if out.exists():
        raise UserError(f"{out} exists already; give --out a directory that does not, or remove it.")
    whole = BaseModel(base, dtype="float32", any_base=any_base)
    processor = load_plain_processor(str(folders[-1]))
    load_plain_processor(base)  # which says what of the base's own files does not fit
    check_files(whole, processor, folders)
    llava = load_llava(whole, CPU)
    fit_embeddings(llava, len(processor.tokenizer))
    saved = [read_saved_adapter(llava, folder, any_base=any_base) for folder in folders]
    model = _stack(llava, saved)
    before = logits(unwrap(model))
    merged: Llava = model.merge_and_unload() if isinstance(model, PeftModel) else model
    after = logits(merged)
    difference = float((after - before).abs().max())
    if not difference < TOLERANCE:
        raise UserError(
            f"Merging changed a logit by {difference:.3g}, more than {TOLERANCE}; the adapters in"
            f" {', '.join(map(str, folders))} cannot be merged into '{base}'."
        )
    written = torch.bfloat16 if dtype == "auto" else resolve_dtype(dtype, CPU)
    for parameter in merged.parameters():  # not the buffers, such as rotary frequencies, which stay in float32
        parameter.data = parameter.data.to(written)
    beside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        merged.save_pretrained(beside)
        processor.save_pretrained(beside)
        write_text(beside / "README.md", card)
        for path in beside.rglob("*.safetensors"):  # written for the owner alone
            path.chmod((beside / "README.md").stat().st_mode)
        _check(beside, merged)
        beside.rename(out)
    except OSError as error:
        raise UserError(f"{out} could not be written ({error.strerror or error}); give another --out.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return difference


@torch.no_grad()
def logits(llava: Llava) -> Tensor:
    """Of a text after three visual tokens of noise: (8, vocabulary), float32. All three parts have a say in them."""
    llava.eval()
    side, width = llava.config.vision_config.image_size, next(llava.parameters())
    noise = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0)).to(width)
    states = llava.model.vision_tower(noise, output_hidden_states=True)
    layer = llava.config.vision_feature_layer
    layers = [layer] if isinstance(layer, int) else layer
    patches = torch.cat([states.hidden_states[i][:, 1:3] for i in layers], dim=-1).flatten(0, 1)
    whole = torch.cat([states.last_hidden_state[:, :1]] * len(layers), dim=-1).flatten(0, 1)
    visual = llava.model.multi_modal_projector(torch.cat([patches, whole]))
    text = llava.get_input_embeddings()(torch.arange(8))
    embeds = torch.cat([visual, text.to(visual.dtype)])[None]
    found: Tensor = llava(inputs_embeds=embeds, logits_to_keep=8).logits[0]
    return found.float()


def _stack(llava: Llava, saved: Sequence[SavedAdapter]) -> PeftModel | Llava:
    model: PeftModel | Llava = llava
    names = []
    for number, one in enumerate(saved):
        names.append(f"adapter_{number}")
        model = put_in(model, one, trainable=False, adapter=names[-1])
    if isinstance(model, PeftModel):
        model.base_model.set_adapter([name for name in names if name in model.peft_config])
    return model.eval()


def _check(folder: Path, merged: Llava) -> None:
    """Reads what was written, without PEFT, and compares it weight by weight and logit by logit."""
    load_config(str(folder))
    again = load_llava(BaseModel(str(folder), dtype=str(merged.dtype).removeprefix("torch.")), CPU)  # type: ignore[arg-type]
    wanted = merged.state_dict()
    same = all(torch.equal(value, wanted[name]) for name, value in again.state_dict().items())
    if not same or not torch.equal(logits(again), logits(merged)):
        raise UserError(f"What was written to {folder} is not what was merged; the disk may be faulty, try another.")
