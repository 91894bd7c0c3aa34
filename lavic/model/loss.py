"""Cross-entropy over the target's tokens: of one full forward pass of the language model, and of its last states.

`prefix_reuse.py` computes the first with less work; the plain way here is what it is tested against.
Shapes: B samples, T tokens, D the language model's width, V views, N supervised tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import LlavaNextForConditionalGeneration

from lavic.batching.padding import IGNORED
from lavic.model.visual_tokens import fill_placeholders

LOSS_CHUNK = 256
"""Predicting positions a chunk: 256 rows of 32,064 float32 logits are 31 MiB."""


def target_loss(
    llava: LlavaNextForConditionalGeneration,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    visual_tokens: Tensor,
    placeholder_ids: Sequence[int],
) -> Tensor:
    """The sum, in nats, of the cross-entropies of all supervised tokens; a float32 scalar.

    Args:
        llava: the model.
        input_ids: (B, T), padded on the right.
        attention_mask: (B, T).
        labels: (B, T); `labels[b, t]` is `input_ids[b, t]` where that token is supervised, else `IGNORED`.
        visual_tokens: (V, D), in the order of the placeholders.
        placeholder_ids: token ids of the placeholders.
    """
    embeds = llava.get_input_embeddings()(input_ids)
    embeds = fill_placeholders(embeds, input_ids, visual_tokens, placeholder_ids)
    hidden = llava.model.language_model(
        inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False
    ).last_hidden_state  # (B, T, D)
    targets = labels[:, 1:]
    supervised = targets != IGNORED
    logits = llava.lm_head(hidden[:, :-1][supervised])  # (N, vocabulary): position t - 1 predicts token t
    return cross_entropy(logits.float(), targets[supervised], reduction="sum")


def chunked_cross_entropy(head: nn.Module, hidden_states: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy of `head(hidden_states)`, without all logits in memory at once.

    Args:
        head: the output head, (N, D) -> (N, vocabulary).
        hidden_states: (N, D).
        targets: (N,) int64; -100 is left out.

    Returns:
        A scalar, float32 or wider. Where more than one chunk is needed, each is computed again in the
        backward pass: 0.3 GFLOP a token for Mistral's head.
    """

    def chunk_loss(hidden_states: Tensor, targets: Tensor) -> Tensor:
        logits = head(hidden_states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")

    if len(targets) <= LOSS_CHUNK:
        return chunk_loss(hidden_states, targets)
    chunks = zip(torch.split(hidden_states, LOSS_CHUNK), torch.split(targets, LOSS_CHUNK), strict=True)
    losses = [checkpoint(chunk_loss, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(losses).sum()
