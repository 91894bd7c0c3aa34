"""Which parameters an optimizer steps at which learning rate, and which of them it decays."""

import torch

from lavic.errors import UserError
from lavic.model.parts import part_of


def parameter_groups(
    module: torch.nn.Module, lr: float, weight_decay: float, part_lr: dict[str, float]
) -> list[dict[str, object]]:
    """The trainable parameters in groups of one learning rate and one weight decay, in the model's order.

    Biases and norms, which have fewer than two dimensions, are never decayed.

    Raises:
        UserError: a learning rate is given for a part of which nothing is trained.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    trained: set[str] = set()
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        part = part_of(name)
        trained.add(part)
        key = (part_lr.get(part, lr), weight_decay if parameter.ndim > 1 else 0.0)
        groups.setdefault(key, []).append(parameter)
    if unknown := sorted(set(part_lr) - trained):
        raise UserError(f"part_lr names {unknown[0]}, of which nothing is trained; there is {', '.join(trained)}.")
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
