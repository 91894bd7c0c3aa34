"""Activation checkpointing by part: less memory, because activations are computed again in the backward pass."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import LlavaNextForConditionalGeneration, PreTrainedModel

Checkpointing = Literal["none", "selective", "full"]

SMALLEST_KEPT_INNER = 256
"""Products over fewer inner elements, such as an adapter's rank, are cheap enough to be computed again."""


@dataclass(frozen=True)
class ActivationCheckpointing:
    """How each part's layers keep their activations.

    `full` keeps a layer's input alone and computes all of it again: a quarter more FLOP for the vision tower.
    `selective` keeps what matrix products and attention gave, and computes only norms, activation functions,
    dropout and the adapters' products again: next to no FLOP, and about a third of the memory.

    Args:
        vision: the vision tower (most of stage 1's activations: 2,885 tokens an item).
        language: the language model.
    """

    vision: Checkpointing = "none"
    language: Checkpointing = "none"


def enable_checkpointing(llava: LlavaNextForConditionalGeneration, parts: ActivationCheckpointing) -> None:
    """Turns checkpointing on for the parts asked for. It acts in training mode only."""
    _enable(llava.model.vision_tower, parts.vision)
    language_model = llava.model.language_model
    _enable(language_model, parts.language)
    if parts.language != "none":
        # Asks for embeddings that require a gradient, which only reentrant checkpoints need.
        language_model.disable_input_require_grads()
        # transformers drops the cache of checkpointed layers, lest recomputation writes to it twice. The
        # cache of prefix_reuse.py is only read where gradients are needed, which is the case this attribute
        # is there for.
        for layer in language_model.layers:
            layer._can_checkpoint_with_cache = True


def _enable(part: PreTrainedModel, how: Checkpointing) -> None:
    options: dict[str, Any] = {"use_reentrant": False}
    if how == "none":
        return
    if how == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_large_products)
    # transformers 5.23 renamed the method; 5.17 knows the old name only.
    new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    getattr(part, new if hasattr(part, new) else old)(options)


def _keep_large_products(_context: object, op: Any, *args: Any, **_options: object) -> CheckpointPolicy:
    name = str(op)
    if name.startswith("aten._scaled_dot_product"):
        return CheckpointPolicy.MUST_SAVE
    first_factor = {"aten.mm.default": 0, "aten.addmm.default": 1, "aten.bmm.default": 0}.get(name)
    if first_factor is not None and args[first_factor].shape[-1] >= SMALLEST_KEPT_INNER:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
