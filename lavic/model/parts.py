"""What is trained of LLaVA: LoRA, everything, or nothing, for each of its three parts; LoRA is placed by PEFT.

The paper's stage 1 is LoRA on every Linear of the vision tower and the projector, the language model frozen. LLaVA's
own first stage is the projector alone in full, its second the projector and the language model.

What is trained is held in float32, whatever the base's dtype, and computed in the base's by autocast: a step of a
usual learning rate is smaller than bfloat16's resolution and would be lost. A part in `full` mode is trained where it
stands, not in a second copy.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from lavic.errors import UserError
from lavic.model.loading import Llava
from lavic.model.unread_parameters import Entry, unread_vision_parameters
from lavic.ranges import check_ranges

Mode = Literal["lora", "full", "frozen"]
PARTS = {"vision": "vision_tower", "projector": "multi_modal_projector", "language": "language_model"}
HELD = {  # what belongs to a part, by the start of its names from the root
    "vision": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.", "model.image_newline"),
    "language": ("model.language_model.", "lm_head."),
}
Short = Literal["lora", "full", "freeze_vision", "projector"]


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
        check_ranges("lora.", r=self.r, alpha=self.alpha, dropout=self.dropout)


@dataclass
class TrainableParts:
    """How each part of LLaVA is trained; the defaults are stage 1's.

    Args:
        vision: the vision tower (CLIP ViT-L/14-336).
        projector: the projector into the language model's embeddings.
        language: the language model; `lora` leaves its output head alone.
        lora: the adapters' shape, for every part in `lora` mode.
        embeddings: whether `language: full` trains the token embeddings and the output head too, as LLaVA does.
    """

    vision: Mode = "lora"
    projector: Mode = "lora"
    language: Mode = "frozen"
    lora: Lora = field(default_factory=Lora)
    embeddings: bool = True

    def __post_init__(self) -> None:
        if len(self.in_mode("frozen")) == len(PARTS):
            raise UserError("Each of vision, projector and language is frozen; set at least one to lora or full.")

    def in_mode(self, mode: Mode) -> list[str]:
        """The attribute names of the parts trained in one mode."""
        return [module for part, module in PARTS.items() if getattr(self, part) == mode]

    def modes(self) -> dict[str, Mode]:
        """The mode of each part, by its name."""
        return {part: getattr(self, part) for part in PARTS}


def short_parts(name: Short, lora: Lora | None = None) -> TrainableParts:
    """The usual ways to tune a LLaVA, by one name.

    `lora` is LoRA on the language model with the projector in full; `full` everything; `freeze_vision` everything but
    the vision tower; `projector` the projector alone (LLaVA's first stage).

    Raises:
        UserError: there is no such name.
    """
    modes: dict[str, tuple[Mode, Mode, Mode]] = {
        "lora": ("frozen", "full", "lora"),
        "full": ("full", "full", "full"),
        "freeze_vision": ("frozen", "full", "full"),
        "projector": ("frozen", "full", "frozen"),
    }
    if name not in modes:
        raise UserError(f"'{name}' is no way to train; give one of {', '.join(get_args(Short))}.")
    vision, projector, language = modes[name]
    return TrainableParts(vision, projector, language, lora or Lora())


def parts_of(trainable: TrainableParts | Short) -> TrainableParts:
    """What a short name stands for; parts that are given one by one as they are."""
    return short_parts(trainable) if isinstance(trainable, str) else trainable


def place_adapters(
    llava: Llava, parts: TrainableParts, base_name: str, seed: int = 0, entry: Entry = "cls"
) -> PeftModel | Llava:
    """Makes exactly `parts` trainable: wraps LLaVA by PEFT for those in `lora` mode, unfreezes those in `full` mode.

    Args:
        llava: the base; its own weights stay where they are.
        parts: what to train.
        base_name: noted in the adapter, so that PEFT finds its base again.
        seed: of the new weights.
        entry: how images enter, which tells what of the vision tower has any influence.

    Returns:
        The PEFT model; LLaVA itself where no part is in `lora` mode.

    Raises:
        UserError: a target's name matches no Linear of the parts in `lora` mode, or a part that is held in 4 bits is
            to be trained in full.
    """
    llava.name_or_path = base_name
    model: PeftModel | Llava = llava
    llava.requires_grad_(False)
    if parts.in_mode("lora"):
        config = lora_config(llava, parts, entry)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = get_peft_model(llava, config)
    unfreeze(llava, full_parameters(llava, parts, entry))
    return model


def lora_config(llava: Llava, parts: TrainableParts, entry: Entry = "cls") -> LoraConfig:
    """PEFT's configuration of the parts in `lora` mode; its names start at the root, so that no other part matches."""
    return LoraConfig(
        r=parts.lora.r,
        lora_alpha=parts.lora.alpha,
        lora_dropout=parts.lora.dropout,
        target_modules=_target_pattern(llava, parts),
        exclude_modules=_unread_linears(llava, entry) if parts.vision == "lora" else None,
        bias="none",
    )


def full_parameters(llava: Llava, parts: TrainableParts, entry: Entry) -> list[str]:
    """Names, from the root, of the parameters to train of the parts in `full` mode: all that have any influence."""
    unused = unread_vision_parameters(llava.config, entry) if parts.vision == "full" else set()
    if entry == "cls":
        unused.add("model.image_newline")
    if not parts.embeddings:
        ends = {id(llava.get_input_embeddings().weight), id(llava.get_output_embeddings().weight)}
        unused |= {name for name, p in llava.named_parameters() if id(p) in ends}
    starts = tuple(start for part, mode in parts.modes().items() if mode == "full" for start in HELD[part])
    names = [name for name, _ in llava.named_parameters() if name.startswith(starts) and name not in unused]
    return [name for name in names if ".lora_" not in name] if starts else []


def unfreeze(llava: Llava, names: list[str]) -> None:
    """Makes the named parameters trainable, in float32.

    Raises:
        UserError: one is held in 4 bits.
    """
    parameters = dict(llava.named_parameters())
    for name in names:
        parameter = parameters[name]
        if not parameter.is_floating_point():
            raise UserError(
                f"{name} is held in 4 bits and cannot be trained in full; use LoRA on it, or quantization: none."
            )
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


def unwrap(model: PeftModel | Llava) -> Llava:
    """LLaVA itself, its adapters in place; a model without adapters is LLaVA itself."""
    return model.base_model.model if isinstance(model, PeftModel) else model


def lora_modules(model: nn.Module) -> list[str]:
    """Names of the modules that carry an adapter."""
    return [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def count_trainable(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def trained_parameters(model: PeftModel | Llava) -> Iterator[tuple[str, nn.Parameter, str]]:
    """Every trainable parameter with its name in LLaVA and its part: for a learning rate a part, say."""
    for name, parameter in unwrap(model).named_parameters():
        if parameter.requires_grad:
            yield name, parameter, part_of(name)


def part_of(name: str) -> str:
    """The part, `vision`, `projector` or `language`, that a parameter or module named from LLaVA's root belongs to.

    Raises:
        ValueError: it belongs to none.
    """
    for part, starts in HELD.items():
        if f"{name}.".startswith(starts):
            return part
    raise ValueError(f"{name} belongs to none of {', '.join(HELD)}")


def _unread_linears(llava: Llava, entry: Entry) -> list[str] | None:
    unused = unread_vision_parameters(llava.config, entry)
    linears = [name for name, module in llava.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in linears if f"{name}.weight" in unused] or None


def _target_pattern(llava: Llava, parts: TrainableParts) -> str:
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
