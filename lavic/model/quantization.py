"""NF4: the language model's frozen weights in 4 bits (Dettmers et al., 2023), held by bitsandbytes."""

from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

KEPT_WHOLE = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]  # names from the root


def nf4(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation of every Linear of the language model, the output head excluded."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=KEPT_WHOLE,
    )


def keep_differentiable(model: nn.Module) -> None:
    """Keeps 4-bit weights in the layout that a gradient comes through, whatever the processor.

    On a CPU with AVX-512 BF16, bitsandbytes 0.50 repacks a weight at its first forward pass in evaluation mode, for a
    kernel that has no backward pass and takes only sizes that 32 divides; training after a validation would learn
    nothing. Every layer asks this flag of its own before it does so.
    """
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
