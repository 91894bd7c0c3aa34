"""Instruction tuning of a LLaVA-1.6, written out again in plain transformers, PEFT and torch.

Nothing of LaViC's code is imported: every record goes alone through one whole forward pass, its text is put together by
hand, log-probabilities are taken token by token, and a step is one division, one backward pass, one clipping and one
AdamW. Records with images make one step of an epoch, those of text alone another.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoProcessor,
    BitsAndBytesConfig,
    LlavaNextForConditionalGeneration,
    get_cosine_schedule_with_warmup,
)

EPOCHS, LR, PROJECTOR_LR, DECAY, CLIP, WARMUP = 3, 1e-3, 4e-4, 0.5, 0.5, 0.3
RANK, ALPHA = 4, 8
LANGUAGE_LINEARS = r"model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
FULL = {  # what each way trains whole, by a part of its parameters' names
    "lora": ("multi_modal_projector", "image_newline"),
    "nf4": ("multi_modal_projector", "image_newline"),
    "full": ("",),
    "freeze_vision": ("multi_modal_projector", "image_newline", "language_model", "lm_head"),
    "projector": ("multi_modal_projector", "image_newline"),
}


def steps_of(way: str) -> int:
    """One with images and one of text alone in each epoch; the projector alone learns nothing from text alone."""
    return EPOCHS if way == "projector" else 2 * EPOCHS


@dataclass(frozen=True)
class Trained:
    """Of each step the loss and the gradient's norm before clipping, of each epoch the val_loss, and the weights."""

    losses: list[float]
    norms: list[float]
    val_losses: list[float]
    start: dict[str, Tensor]
    weights: dict[str, Tensor]


def train(base: Path, files: Path, way: str, start: Mapping[str, Tensor]) -> Trained:
    """The optimizer steps of `EPOCHS` epochs.

    Args:
        base: the checkpoint.
        files: the folder of train.json, val.json and images.
        way: one of `FULL`; `lora` and `nf4` have LoRA on the language model besides.
        start: the weights to train, by name, as they are before the first step.

    Raises:
        AssertionError: `way` trains something that `start` has not, or the other way round; but for what no record
            ever gives a gradient to.
    """
    model = load(base, way)
    trained = {name: p for name, p in model.named_parameters() if is_trained(name, way)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    assert not start.keys() - trained.keys()
    with torch.no_grad():
        for name, weights in start.items():
            trained[name].copy_(weights)
    optimizer = torch.optim.AdamW(groups({name: trained[name] for name in start}))
    schedule = get_cosine_schedule_with_warmup(optimizer, -int(-WARMUP * steps_of(way) // 1), steps_of(way))
    processor = AutoProcessor.from_pretrained(base)
    records = {split: json.loads((files / f"{split}.json").read_text()) for split in ("train", "val")}
    found = Trained([], [], [], {name: weights.clone() for name, weights in start.items()}, {})
    for _ in range(EPOCHS):
        kinds = [[r for r in records["train"] if "image" in r], [r for r in records["train"] if "image" not in r]]
        for step in kinds[: steps_of(way) // EPOCHS]:
            model.zero_grad()
            loss = mean_loss(model, processor, step, files / "images")
            loss.backward()  # type: ignore[no-untyped-call]
            never = [name for name in trained.keys() - start.keys() if trained[name].grad is not None]
            assert not never, f"{never} have a gradient and are not trained"
            for name in start:  # text alone has a gradient of zero for the projector, not none:
                if trained[name].grad is None:  # AdamW goes on by its momentum then
                    trained[name].grad = torch.zeros_like(trained[name])
            found.norms.append(float(nn.utils.clip_grad_norm_([trained[name] for name in start], CLIP)))
            optimizer.step()
            schedule.step()
            found.losses.append(float(loss.detach()))
        with torch.no_grad():
            found.val_losses.append(float(mean_loss(model, processor, records["val"], files / "images")))
    found.weights.update({name: trained[name].detach().clone() for name in start})
    return found


def load(base: Path, way: str) -> Any:
    """The model, with LoRA on the language model's Linears where `way` has it."""
    quantised = {}
    if way == "nf4":
        kept = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
        quantised["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32, llm_int8_skip_modules=kept,
        )  # fmt: skip
    llava = LlavaNextForConditionalGeneration.from_pretrained(base, dtype=torch.float32, **quantised)
    if way in ("lora", "nf4"):
        shape = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=LANGUAGE_LINEARS)
        return get_peft_model(llava, shape).train()
    return llava.train()


def is_trained(name: str, way: str) -> bool:
    return "lora_" in name or any(part in name for part in FULL[way])


def groups(trained: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
    """Each parameter with its own learning rate and decay."""
    return [
        {
            "params": [parameter],
            "lr": PROJECTOR_LR if "multi_modal_projector" in name or "image_newline" in name else LR,
            "weight_decay": DECAY if parameter.dim() >= 2 else 0.0,
        }
        for name, parameter in trained.items()
    ]


def mean_loss(llava: Any, processor: Any, records: list[dict[str, Any]], images: Path) -> Tensor:
    """The mean over all tokens of answers and their ends."""
    total, count = torch.zeros(()), 0
    for record in records:
        shown = [Image.open(images / name) for name in record.get("image", [])]
        text = ""
        learned: list[int] = []
        for turn in record["conversations"]:
            if turn["from"] == "human":
                said = turn["value"].replace("<image>", "").strip() if shown and not text else turn["value"]
                text += "[INST] " + "<image>\n" * (len(shown) if not text else 0) + said + " [/INST]"
            else:
                start = processor(text=text, images=shown or None, return_tensors="pt")["input_ids"].shape[1]
                text += f" {turn['value']}</s>"
                stop = processor(text=text, images=shown or None, return_tensors="pt")["input_ids"].shape[1]
                learned += range(start, stop)
        inputs = processor(text=text, images=shown or None, return_tensors="pt")
        scores = llava(**inputs).logits[0].log_softmax(dim=-1)
        for place in learned:
            total = total - scores[place - 1, inputs["input_ids"][0, place]]
        count += len(learned)
    mean: Tensor = total / count
    return mean
