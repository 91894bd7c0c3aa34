"""What is trained of LLaVA: LoRA, everything, or nothing, for each of its three parts; placed by PEFT.

The paper's stage 1 is LoRA on every Linear of the vision tower and the projector, the language model frozen.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import LlavaNextForConditionalGeneration

from lavic.errors import UserError

Mode = Literal["lora", "full", "frozen"]
PARTS = {"vision": "vision_tower", "projector": "multi_modal_projector", "language": "language_model"}


@dataclass
class Lora:
    """Low-rank adaptation (Hu et al., 2021).

    Args:
        r: rank of the update.
        alpha: the update is scaled by alpha / r.
        dropout: share of the adapter's inputs dropped in training, 0 to 1.
        targets: names of the Linears that get an adapter, such as `q_proj`; null means every one of the part.
    """

    r: int = 8
    alpha: int = 32
    dropout: float = 0.1
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        if self.r < 1:
            raise UserError(f"lora.r is {self.r}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout is {self.dropout}; it must be at least 0 and below 1.")


@dataclass
class TrainableParts:
    """How each part of LLaVA is trained; the defaults are stage 1's.

    Args:
        vision: the vision tower (CLIP ViT-L/14-336).
        projector: the two-layer projector into the language model's embeddings.
        language: the language model, without its output head.
        lora: the adapters' shape, for every part in `lora` mode.
    """

    vision: Mode = "lora"
    projector: Mode = "lora"
    language: Mode = "frozen"
    lora: Lora = field(default_factory=Lora)

    def __post_init__(self) -> None:
        if not self.in_mode("lora"):
            raise UserError("None of vision, projector and language is set to lora; an adapter needs at least one.")

    def in_mode(self, mode: Mode) -> list[str]:
        """The attribute names of the parts trained in one mode."""
        return [module for part, module in PARTS.items() if getattr(self, part) == mode]


def place_adapters(
    llava: LlavaNextForConditionalGeneration, parts: TrainableParts, base_name: str, seed: int = 0
) -> PeftModel:
    """Wraps LLaVA by PEFT so that exactly `parts` is trainable; new LoRA weights are float32 whatever the base's dtype.

    Args:
        llava: the base; its own weights stay where they are.
        parts: what to train.
        base_name: noted in the adapter, so that PEFT finds its base again.
        seed: of the new weights.

    Raises:
        UserError: a target's name matches no Linear of the parts in `lora` mode.
    """
    config = LoraConfig(
        r=parts.lora.r,
        lora_alpha=parts.lora.alpha,
        lora_dropout=parts.lora.dropout,
        target_modules=_target_pattern(llava, parts),
        modules_to_save=parts.in_mode("full") or None,
        bias="none",
    )
    llava.name_or_path = base_name
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        model = get_peft_model(llava, config)
    for module in parts.in_mode("full"):
        getattr(unwrap(model).model, module).float()  # master weights
    return model


def unwrap(model: Any) -> Any:
    """LLaVA itself, its adapters in place; a model without adapters is LLaVA itself."""
    return model.base_model.model if isinstance(model, PeftModel) else model


def part_of(parameter: str) -> str:
    """Which part a parameter belongs to, by its name: `vision`, `projector` or `language` (its head included)."""
    return next((part for part, module in PARTS.items() if f".{module}." in f".{parameter}"), "language")


def lora_modules(model: nn.Module) -> list[str]:
    """Names of the modules that carry an adapter."""
    return [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def count_trainable(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _target_pattern(llava: LlavaNextForConditionalGeneration, parts: TrainableParts) -> str:
    """A regular expression that matches exactly the Linears to adapt, short enough to read in adapter_config.json."""
    modules = parts.in_mode("lora")
    inside = re.compile(rf"model\.({'|'.join(modules)})\.(?:.+\.)?([^.]+)")
    linears = {
        match.group(2)
        for name, module in llava.named_modules()
        if isinstance(module, nn.Linear) and (match := inside.fullmatch(name))
    }
    wanted = sorted(linears) if parts.lora.targets is None else parts.lora.targets
    for target in wanted:
        if target not in linears:
            raise UserError(
                f"The LoRA target '{target}' matches no Linear of {', '.join(modules)};"
                f" there are {', '.join(sorted(linears)) or 'none'}."
            )
    return rf"model\.({'|'.join(modules)})\.(.+\.)?({'|'.join(wanted)})"
