"""Greedy decoding of a batch: rows that ended leave it, and a prompt's constant start is computed once for all.

The keys and values lie in room that is made once for all tokens to come; transformers' own cache copies them whole at
every token, which for LLaVA-v1.6's 2,900 visual tokens is the larger part of a step.

Shapes: B rows, P kept prefix tokens, T prompt tokens behind them, D the language model's width.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from lavic.model.prefix_reuse import KeysValues


@torch.inference_mode()
def decode_greedily(
    llava: Any,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    max_new_tokens: int,
    eos_ids: Collection[int],
    past: KeysValues = (),  # type: ignore[assignment]
) -> list[list[int]]:
    """The likeliest token after token, as `generate` without sampling gives it, without EOS.

    Args:
        llava: a LLaVA in evaluation mode, whatever its family.
        inputs_embeds: (B, T, D), padded on the left.
        attention_mask: (B, T), 0 on the padding.
        max_new_tokens: at most, EOS counted.
        eos_ids: each of them ends a row.
        past: keys and values of P tokens that every prompt starts with; a pair a layer, (1, heads, P, head size).
    """
    language_model, head = llava.model.language_model, llava.lm_head
    rows, prompt, _ = inputs_embeds.shape
    before = past[0][0].shape[-2] if past else 0
    layers = [_RoomyLayer(before + prompt + max_new_tokens) for _ in language_model.layers]
    for layer, (keys, values) in zip(layers, past, strict=False):
        layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
    cache = Cache(layers=layers)
    mask = torch.cat([attention_mask.new_ones(rows, before), attention_mask], dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, before:]
    embed = llava.get_input_embeddings()
    ends = torch.tensor(sorted(eos_ids), device=inputs_embeds.device)

    found: list[list[int]] = [[] for _ in range(rows)]
    open_rows = list(range(rows))
    embeds = inputs_embeds
    for step in range(max_new_tokens):
        hidden = language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        chosen = head(hidden[:, -1]).argmax(dim=-1)  # (B,)
        goes_on = ~torch.isin(chosen, ends)
        tokens, going_on = chosen.tolist(), goes_on.tolist()
        for row, token, on in zip(open_rows, tokens, going_on, strict=True):
            if on:
                found[row].append(token)
        open_rows = [row for row, on in zip(open_rows, going_on, strict=True) if on]
        if not open_rows or step == max_new_tokens - 1:
            break
        positions = positions[:, -1:] + 1
        if not all(going_on):
            staying = goes_on.nonzero().flatten()
            cache.batch_select_indices(staying)
            chosen, mask, positions = chosen[staying], mask[staying], positions[staying]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        embeds = embed(chosen.unsqueeze(1))
    return found


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer of known greatest length: new keys and values are written behind the others, which stay."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room, self._length = room, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """(B, heads, new tokens, head size) of each; returns all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _, size = key_states.shape
            self._keys = key_states.new_empty(rows, heads, self._room, size)
            self._values = value_states.new_empty(rows, heads, self._room, value_states.shape[-1])
        stop = self._length + key_states.shape[-2]
        self._keys[:, :, self._length : stop] = key_states
        self._values[:, :, self._length : stop] = value_states
        self._show(stop)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps the rows `indices`."""
        self._keys, self._values = self._keys[indices], self._values[indices]
        self._show(self._length)

    def _show(self, length: int) -> None:
        self._length = length
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]
