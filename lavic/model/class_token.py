"""The last vision layer, computed for the class token only.

LaViC reads `last_hidden_state[:, 0]` of the vision tower, so what the last layer computes for the 576 patches
is thrown away. Keys and values are still needed of every token; queries, the output projection and the MLP of
the class token alone.
"""

from collections.abc import Callable

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer, eager_attention_forward


class ClassTokenEncoderLayer(CLIPEncoderLayer):  # type: ignore[misc]
    """A CLIP encoder layer that returns the class token's hidden state only: (V, N, D) -> (V, 1, D).

    It owns no weight of its own: `keep_class_token_only` turns an existing layer into one, so that parameter
    names, LoRA modules and their dropout stay as they are.
    """

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: object) -> Tensor:
        normed = self.layer_norm1(hidden_states)
        class_token: Tensor = hidden_states[:, :1] + _attend(self.self_attn, normed[:, :1], normed, **kwargs)
        class_token = class_token + self.mlp(self.layer_norm2(class_token))
        return class_token


def _attend(attention: CLIPAttention, queries_of: Tensor, keys_of: Tensor, **kwargs: object) -> Tensor:
    """CLIP's attention of (V, M, D) over (V, N, D) -> (V, M, D), through the kernel that the config names."""

    def heads(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], -1, attention.head_dim).transpose(1, 2)

    kernel: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, eager_attention_forward
    )
    attended, _ = kernel(
        attention,
        heads(attention.q_proj(queries_of)),
        heads(attention.k_proj(keys_of)),
        heads(attention.v_proj(keys_of)),
        None,
        scaling=attention.scale,
        dropout=attention.dropout if attention.training else 0.0,
        **kwargs,
    )
    projected: Tensor = attention.out_proj(attended.flatten(2))
    return projected


def last_layer(vision_tower: nn.Module) -> CLIPEncoderLayer:
    """The tower's last encoder layer; ValueError when the tower is not CLIP, so has no class token."""
    layers = [module for module in vision_tower.modules() if isinstance(module, CLIPEncoderLayer)]
    if not layers:
        raise ValueError(f"the vision tower is a {type(vision_tower).__name__}, not CLIP: no class token")
    return layers[-1]


def has_class_token(vision_tower: nn.Module) -> bool:
    """Whether the tower is CLIP, so that its first position is a class token."""
    return any(isinstance(module, CLIPEncoderLayer) for module in vision_tower.modules())


def keep_class_token_only(vision_tower: nn.Module, enabled: bool = True) -> None:
    """Makes the tower's `last_hidden_state` (V, 1, D): the class token, as before, and nothing else.

    `last_hidden_state[:, 0]`, `pooler_output` and the earlier layers' hidden states keep their values. With
    `enabled` false the layer becomes an ordinary one again. Before or after LoRA is placed makes no
    difference.
    """
    last_layer(vision_tower).__class__ = ClassTokenEncoderLayer if enabled else CLIPEncoderLayer
