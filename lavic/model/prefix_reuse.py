"""The target's loss, computed once where samples agree and differentiated only where a gradient can flow.

The language model is frozen and causal. Along one prompt that leaves three segments:

    [ constant start of the template | title | first placeholder ... target ]
      keys and values kept             no grad   forward and backward

The first two only contribute keys and values. Titles differ in length, so inside a batch the third segment
starts at another column in each row; rows are cut there and left-aligned, the keys of shorter titles are
masked, and `position_ids` keep each token at its own place. The result equals the plain forward's within
rounding.

A language model that is trained changes with every step. What all rows of a batch start with is computed once
in the step then, and differentiated; nothing else is left out. Dropout draws one mask for that start.

Shapes: B rows, T columns, P kept prefix tokens, M title columns, S columns of the third segment, N predicting
positions, V views (= placeholders in the batch), D the language model's width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from lavic.batching.padding import IGNORED
from lavic.model.autocast import autocast_dtype
from lavic.model.loss import chunked_cross_entropy
from lavic.model.speedups import Speedups

KeysValues = list[tuple[Tensor, Tensor]]
"""A layer's keys and values, each (B or 1, key-value heads, tokens, head size)."""


@dataclass(frozen=True)
class Segments:
    """Where a batch is cut. Made on the host, so that nothing in the step waits for the device.

    Attributes:
        prefix_length: P, how many leading tokens are taken from the kept prefix; 0 if none.
        title_ids: (B, M) int64, right-padded; M may be 0.
        ids: (B, S) int64, the third segment, right-padded.
        positions: (B, S) int64, each token's place in its row.
        attention_mask: (B, P + M + S) int64, 0 on the padding behind shorter titles; None if no title is shorter.
        placeholders: (V,) int64, indices into the flattened `ids`, in the order of the visual tokens.
        predicting: (N,) int64, indices into the flattened `ids` of the tokens whose successor is predicted.
        targets: (N,) int64, those successors; -100 where there is none to predict.
    """

    prefix_length: int
    title_ids: Tensor
    ids: Tensor
    positions: Tensor
    attention_mask: Tensor | None
    placeholders: Tensor
    predicting: Tensor
    targets: Tensor

    def to(self, device: torch.device | str) -> "Segments":
        """A copy on `device`; from pinned memory the transfer does not block."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def segment_batch(
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    placeholder_ids: Sequence[int],
    prefix_ids: Sequence[int] = (),
    speedups: Speedups | None = None,
) -> Segments:
    """Cuts a right-padded batch (each tensor (B, T) int64, on the CPU) into the three segments.

    `prefix_ids` is what prompts are expected to start with. As many of its tokens as every row does start
    with are reused, down to none. Raises ValueError for a batch that is not right-padded.
    """
    speedups = speedups or Speedups()
    rows, columns = input_ids.shape
    lengths = attention_mask.sum(1)
    column = torch.arange(columns)
    if not torch.equal(attention_mask.bool(), column < lengths[:, None]):
        raise ValueError("the batch is not right-padded: attention_mask has a 0 before a 1")

    is_placeholder = torch.isin(input_ids, torch.tensor(list(placeholder_ids))) & attention_mask.bool()
    targets = torch.full_like(labels, IGNORED)
    targets[:, :-1] = labels[:, 1:]
    needed = is_placeholder | (targets != IGNORED)

    first = torch.where(needed, column, lengths[:, None] - 1).min(1).values.clamp(min=0)
    last = torch.where(needed, column, first[:, None]).max(1).values
    stop = last + 1 if speedups.target_logits_only else lengths

    prefix_length = 0
    if speedups.reuse_prefix:
        prefix = torch.tensor(list(prefix_ids)[: int(first.min())], dtype=torch.int64)
        agrees = (input_ids[:, : len(prefix)] == prefix).all(0)
        prefix_length = int(agrees.cumprod(0).sum())
    start = first if speedups.no_prompt_gradient else torch.full_like(first, prefix_length)

    title_lengths = start - prefix_length
    title_width, width = int(title_lengths.max()), int((stop - start).max())
    positions = start[:, None] + torch.arange(width)
    inside = positions < stop[:, None]
    positions = positions.clamp(max=columns - 1)
    segment_targets = targets.gather(1, positions).masked_fill(~inside, IGNORED).flatten()
    if speedups.target_logits_only:
        predicting = (segment_targets != IGNORED).nonzero().flatten()
    else:
        predicting = torch.arange(rows * width)

    title_mask = torch.arange(title_width) < title_lengths[:, None]
    whole_mask = None
    if not bool(title_mask.all()):
        whole_mask = torch.cat([torch.ones(rows, prefix_length).bool(), title_mask, inside], dim=1).long()
    return Segments(
        prefix_length=prefix_length,
        title_ids=input_ids[:, prefix_length : prefix_length + title_width],
        ids=input_ids.gather(1, positions),
        positions=positions,
        attention_mask=whole_mask,
        placeholders=(is_placeholder.gather(1, positions) & inside).flatten().nonzero().flatten(),
        predicting=predicting,
        targets=segment_targets[predicting],
    )


class FrozenPrefix:
    """Keys and values of the prompts' constant start, computed at first use and kept.

    Valid as long as the language model's weights do not change, which is why a trainable one is refused. They
    are computed again when the model moves to another device or dtype.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._kept: KeysValues = []
        self._made_for: tuple[object, ...] | None = None

    def keys_values(self, llava: LlavaNextForConditionalGeneration) -> KeysValues:
        """One (1, key-value heads, P, head size) pair a layer."""
        language_model = llava.model.language_model
        weight = language_model.embed_tokens.weight
        made_for = (id(language_model), weight.device, weight.dtype, autocast_dtype(weight.device))
        if self._made_for != made_for:
            self._kept = _extend(language_model, [], torch.tensor([self.ids], device=weight.device))
            self._made_for = made_for
        return self._kept


def shared_prefix_loss(
    llava: LlavaNextForConditionalGeneration,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    visual_tokens: Tensor,
    placeholder_ids: Sequence[int],
    *,
    prefix: FrozenPrefix | None = None,
    segments: Segments | None = None,
) -> Tensor:
    """Sum of the cross-entropies of all supervised tokens, as `lavic.model.loss.target_loss` gives it.

    Args:
        llava: a `LlavaNextForConditionalGeneration`, LoRA modules included, with a frozen language model.
        input_ids, attention_mask, labels: (B, T) int64, right-padded; labels are -100 where not supervised.
        visual_tokens: (V, D), in the order in which their placeholders stand in the batch.
        placeholder_ids: the ids that visual tokens replace.
        prefix: the constant start to reuse.
        segments: `segment_batch(...)` of the same batch, on the model's device. Without one it is made here, which
            on a GPU waits for the device. With a `prefix_length` and no `prefix` given, the rows' common start is
            computed once for all of them, with its gradient.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: the language model has trainable parameters or dropout, so what is kept, or forwarded without
            gradient, needs one or differs at each step.
    """
    if segments is None:
        prefix_ids = prefix.ids if prefix else ()
        segments = segment_batch(input_ids.cpu(), attention_mask.cpu(), labels.cpu(), placeholder_ids, prefix_ids)
        segments = segments.to(input_ids.device)
    language_model = llava.model.language_model
    past: KeysValues = []
    if segments.title_ids.shape[1] or (segments.prefix_length and prefix):
        _require_frozen(language_model)
    if segments.prefix_length and prefix:
        past = [
            (keys[:, :, : segments.prefix_length], values[:, :, : segments.prefix_length])
            for keys, values in prefix.keys_values(llava)
        ]
    elif segments.prefix_length:
        past = _differentiable(language_model, input_ids[:1, : segments.prefix_length])
    if segments.title_ids.shape[1]:
        past = _extend(language_model, past, segments.title_ids)

    embeddings = language_model.get_input_embeddings()(segments.ids)
    filled = embeddings.flatten(0, 1).index_copy(0, segments.placeholders, visual_tokens.to(embeddings.dtype))
    hidden_states = language_model(
        inputs_embeds=filled.view_as(embeddings),
        attention_mask=segments.attention_mask,
        position_ids=segments.positions,
        past_key_values=_read_only(language_model, past),
        use_cache=False,
    ).last_hidden_state
    predicting = hidden_states.flatten(0, 1).index_select(0, segments.predicting)
    return chunked_cross_entropy(llava.lm_head, predicting, segments.targets)


class _ReadOnlyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that hands out its tokens followed by the new ones, and keeps only its own.

    Recomputation under activation checkpointing may therefore ask twice, and no graph outlives the step.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            return key_states, value_states
        rows = len(key_states)
        keys, values = (kept.expand(rows, -1, -1, -1) for kept in (self.keys, self.values))
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def _read_only(language_model: PreTrainedModel, past: KeysValues) -> Cache:
    """A cache of `past`. An empty one still tells transformers that rows are not several packed sequences, for
    which it would look at the positions on the host."""
    layers = [_ReadOnlyLayer() for _ in language_model.layers]
    for layer, (keys, values) in zip(layers, past, strict=False):
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
    return Cache(layers=layers)


@torch.no_grad()
def _extend(language_model: PreTrainedModel, past: KeysValues, ids: Tensor) -> KeysValues:
    """Keys and values of `past` followed by those of `ids` (B, M), at the positions that follow."""
    layers = [DynamicLayer() for _ in language_model.layers]
    for layer, (keys, values) in zip(layers, past, strict=False):
        layer.update(keys.expand(len(ids), -1, -1, -1), values.expand(len(ids), -1, -1, -1))
    language_model(input_ids=ids, past_key_values=Cache(layers=layers), use_cache=False)
    return [(layer.keys, layer.values) for layer in layers]


class _LatestLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer of one pass: recomputation under activation checkpointing gives it the same once more."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        self.keys, self.values = key_states, value_states
        return key_states, value_states


def _differentiable(language_model: PreTrainedModel, ids: Tensor) -> KeysValues:
    """Keys and values of `ids` (1, P), through which gradients flow."""
    layers = [_LatestLayer() for _ in language_model.layers]
    language_model(input_ids=ids, past_key_values=Cache(layers=layers), use_cache=False)
    return [(layer.keys, layer.values) for layer in layers]


def _require_frozen(language_model: PreTrainedModel) -> None:
    trainable = next((name for name, p in language_model.named_parameters() if p.requires_grad), None)
    if trainable is not None:
        raise ValueError(
            f"prefix reuse needs a frozen language model, but {trainable} is trainable; "
            "switch reuse_prefix and no_prompt_gradient off"
        )
    if language_model.training and language_model.config.attention_dropout:
        raise ValueError(
            f"prefix reuse needs attention_dropout 0 in the language model, not "
            f"{language_model.config.attention_dropout}; switch reuse_prefix and no_prompt_gradient off"
        )
