"""Cross-entropy over the target's tokens, the plain way: one full forward pass of the language model.

`prefix_reuse.py` computes the same with less work; this one is what it is tested against.
Shapes: B samples, T tokens, D the language model's width, V views, N supervised tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration

from lavic.batching.padding import IGNORED
from lavic.model.visual_tokens import fill_placeholders


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
    return torch.nn.functional.cross_entropy(logits.float(), targets[supervised], reduction="sum")
