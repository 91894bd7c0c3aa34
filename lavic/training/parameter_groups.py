"""Which parameters an optimizer steps at which learning rate, and which of them it decays."""

from collections.abc import Iterable, Mapping

from torch import nn

from lavic.errors import UserError


def parameter_groups(
    trained: Iterable[tuple[str, nn.Parameter, str]], lr: float, weight_decay: float, part_lr: Mapping[str, float]
) -> list[dict[str, object]]:
    """The trainable parameters in groups of one learning rate and one weight decay, in the model's order.

    Biases and norms, which have fewer than two dimensions, are never decayed.

    Args:
        trained: name, parameter and part of each.
        lr: the learning rate.
        weight_decay: the weight decay.
        part_lr: learning rates of parts that have their own.

    Raises:
        UserError: a learning rate is given for a part of which nothing is trained.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    parts: set[str] = set()
    for _, parameter, part in trained:
        parts.add(part)
        key = (part_lr.get(part, lr), weight_decay if parameter.ndim > 1 else 0.0)
        groups.setdefault(key, []).append(parameter)
    if unknown := sorted(set(part_lr) - parts):
        there = ", ".join(sorted(parts))
        raise UserError(f"part_lr names {unknown[0]}, of which nothing is trained; there is {there}.")
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
