"""Which of the vision tower's parameters never reach what LLaVA reads of it.

Patch tokens of layer -2 leave the tower's last layer and its post-layernorm without a gradient, class tokens the
post-layernorm alone. What gets no gradient must not be trained: DDP would wait for it. Asked of autograd, on a copy
of the tower without weights, so that no vision family has to be known by name.
"""

from typing import Any, Literal

import torch
from transformers import AutoModel, PretrainedConfig

Entry = Literal["cls", "patch"]


def unread_vision_parameters(config: PretrainedConfig, entry: Entry) -> set[str]:
    """Names, from the root, of the vision tower's parameters without influence on the image features.

    Args:
        config: LLaVA's.
        entry: `cls` reads the class token of `last_hidden_state`, `patch` the hidden states that the config names.
    """
    layers = config.vision_feature_layer
    with torch.device("meta"), torch.enable_grad():
        tower, out = _run(config)
        if entry == "cls":
            read = out.last_hidden_state[:, 0]
        else:
            layers = [layers] if isinstance(layers, int) else layers
            read = torch.cat([out.hidden_states[layer] for layer in layers], dim=-1)
        read.sum().backward()
    return {f"model.vision_tower.{name}" for name, parameter in tower.named_parameters() if parameter.grad is None}


def extra_positions(config: PretrainedConfig) -> int:
    """How many positions the tower has besides its patches: 1 for CLIP's class token, 0 for a tower without one."""
    key = config.vision_config.to_json_string()
    if key not in _EXTRA:
        with torch.device("meta"), torch.no_grad():
            positions: int = _run(config)[1].last_hidden_state.shape[1]
        _EXTRA[key] = positions - (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    return _EXTRA[key]


_EXTRA: dict[str, int] = {}  # by the tower's configuration: model and data of a run both ask


def _run(config: PretrainedConfig) -> tuple[Any, Any]:
    """A tower without weights and what it gives for one image."""
    tower = AutoModel.from_config(config.vision_config)
    side = config.vision_config.image_size
    return tower, tower(torch.zeros(1, 3, side, side), output_hidden_states=True)
