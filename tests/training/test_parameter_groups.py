"""Each parameter's learning rate and weight decay, by its name."""

from typing import Any

import pytest
from torch import nn

from lavic.errors import UserError
from lavic.model.parts import trained_parameters
from lavic.training.parameter_groups import parameter_groups


class Parts(nn.Module):
    """LLaVA's names at the size of a test."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.vision_tower = nn.Linear(2, 2).requires_grad_(False)
        self.model.multi_modal_projector = nn.Linear(2, 3)
        self.model.language_model = nn.Sequential(nn.Embedding(4, 3), nn.LayerNorm(3), nn.Linear(3, 3))
        self.lm_head = nn.Linear(3, 4, bias=False)


def test_parts_have_their_own_rates_and_neither_biases_nor_norms_decay() -> None:
    trained = list(trained_parameters(Parts()))
    groups: list[dict[str, Any]] = parameter_groups(trained, lr=2e-4, weight_decay=0.1, part_lr={"projector": 2e-5})
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert {name: of[id(p)] for name, p, _ in trained} == {
        "model.multi_modal_projector.weight": (2e-5, 0.1),
        "model.multi_modal_projector.bias": (2e-5, 0.0),
        "model.language_model.0.weight": (2e-4, 0.1),
        "model.language_model.1.weight": (2e-4, 0.0),
        "model.language_model.1.bias": (2e-4, 0.0),
        "model.language_model.2.weight": (2e-4, 0.1),
        "model.language_model.2.bias": (2e-4, 0.0),
        "lm_head.weight": (2e-4, 0.1),
    }


def test_a_rate_for_what_is_not_trained_is_refused() -> None:
    with pytest.raises(UserError, match="part_lr names vision"):
        parameter_groups(trained_parameters(Parts()), 2e-4, 0.0, {"vision": 1e-5})
