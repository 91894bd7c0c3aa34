"""Activation checkpointing by part: less memory for one more forward of that part."""

from dataclasses import dataclass

from transformers import LlavaNextForConditionalGeneration, PreTrainedModel


@dataclass(frozen=True)
class ActivationCheckpointing:
    """Parts whose layers keep only their input and are computed again in the backward pass.

    Args:
        vision: the vision tower (most of stage 1's activations: 2,885 tokens an item).
        language: the language model.
    """

    vision: bool = False
    language: bool = False


def enable_checkpointing(llava: LlavaNextForConditionalGeneration, parts: ActivationCheckpointing) -> None:
    """Turns checkpointing on for the parts asked for. It acts in training mode only."""
    if parts.vision:
        _enable(llava.model.vision_tower)
    if parts.language:
        language_model = llava.model.language_model
        _enable(language_model)
        # Asks for embeddings that require a gradient, which only reentrant checkpoints need.
        language_model.disable_input_require_grads()
        # transformers drops the cache of checkpointed layers, lest recomputation writes to it twice. The
        # cache of prefix_reuse.py is only read where gradients are needed, which is the case this attribute
        # is there for.
        for layer in language_model.layers:
            layer._can_checkpoint_with_cache = True


def _enable(part: PreTrainedModel) -> None:
    # transformers 5.23 renamed the method; 5.17 knows the old name only.
    new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    getattr(part, new if hasattr(part, new) else old)({"use_reentrant": False})
