"""Bytes on the device during a training step, by part, counted from the configuration.

Activations are what autograd keeps between forward and backward pass, tensor by tensor, in the form that
transformers' CLIP and Mistral or Llama layers, PEFT's adapters and SDPA have. They are given for training under
autocast (16-bit) or in float32; norms keep float32 in both.
"""

from dataclasses import dataclass

from transformers import LlavaNextConfig

from lavic.cost.counting import (
    Linear,
    Sample,
    language_linears,
    parameters,
    rank_of,
    trainable_parameters,
    vision_linears,
    vision_tokens,
)
from lavic.model.activation_checkpointing import ActivationCheckpointing, Checkpointing
from lavic.model.loss import LOSS_CHUNK
from lavic.model.parts import PARTS, TrainableParts
from lavic.model.speedups import Speedups

GIB = 2**30
CONTEXT = 0.45 * GIB
"""The CUDA context, the kernels, and cuBLAS's workspace; outside PyTorch's own counters."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight: 4 bits, an 8-bit constant for each 64 weights, a float32 one for each 256 constants."""


@dataclass(frozen=True)
class Precision:
    """How numbers are held.

    Args:
        weights: bytes of a frozen weight, and of an activation.
        nf4: the language model's Linears are in 4 bits.
        dropout_mask: bytes an element that dropout keeps: 1 on a GPU, 4 on a CPU.
    """

    weights: int = 2
    nf4: bool = False
    dropout_mask: int = 1


def step_bytes(
    config: LlavaNextConfig,
    trainable: TrainableParts,
    precision: Precision,
    batch: int,
    sample: Sample | None = None,
    speedups: Speedups | None = None,
    checkpointing: ActivationCheckpointing | None = None,
) -> dict[str, float]:
    """Bytes by part, at the moment when most are in use; their sum is the peak."""
    sample, speedups = sample or Sample(), speedups or Speedups()
    checkpointing = checkpointing or ActivationCheckpointing()
    trained = sum(trainable_parameters(config, trainable).values())
    vision, vision_workspace = vision_activations(
        config, trainable, precision, sample.views * batch, speedups, checkpointing.vision
    )
    language, language_workspace = language_activations(
        config, trainable, precision, sample, batch, speedups, checkpointing.language
    )
    logits, logits_workspace = logit_bytes(config, precision, sample, batch, speedups)
    # At the turn from forward to backward both parts' activations are there; the workspaces come one by one, and
    # the vision tower's when the language model's activations are gone.
    late = max(0.0, vision_workspace - language - logits)
    return {
        **_weight_bytes(config, trainable, precision),
        "trainable_weights": 4.0 * trained,
        "gradients": 4.0 * trained,
        "optimizer": 8.0 * trained,
        "vision_activations": vision,
        "language_activations": language,
        "logits": logits,
        "workspace": max(logits_workspace, language_workspace - logits, late),
        "context": CONTEXT,
    }


def _weight_bytes(config: LlavaNextConfig, trainable: TrainableParts, precision: Precision) -> dict[str, float]:
    """Of the weights that are not trained; a part in full mode is held once, in float32, among those that are."""
    counts, trained = parameters(config), trainable_parameters(config, trainable)
    counts["language"] += counts["head"]
    for part in PARTS:
        if getattr(trainable, part) == "full":
            counts[part] -= trained[part]
    frozen = {part: float(precision.weights * counts[part]) for part in PARTS}
    if precision.nf4:
        layers = config.text_config.num_hidden_layers
        linears = layers * sum(linear.parameters for linear in language_linears(config).values())
        frozen["language"] -= (precision.weights - NF4_BYTES) * linears
    return {"vision_weights": frozen["vision"] + frozen["projector"], "language_weights": frozen["language"]}


def vision_activations(
    config: LlavaNextConfig,
    trainable: TrainableParts,
    precision: Precision,
    views: int,
    speedups: Speedups,
    checkpointing: Checkpointing,
) -> tuple[float, float]:
    """What the vision tower keeps for the backward pass of `views` views, and what one layer needs meanwhile."""
    if trainable.vision == "frozen":
        return 0.0, 0.0
    vision, tokens, size = config.vision_config, vision_tokens(config), precision.weights
    width, hidden = vision.hidden_size, vision.intermediate_size
    norms = 2 * 4 * width
    attention = 4 * size * width  # queries, keys, values, output
    gelu = 2 * size * hidden  # quick_gelu keeps its input and the sigmoid
    linears = vision_linears(config)
    adapters = {name: _adapter(trainable, precision, "vision", name, linears[name]) for name in linears}
    whole = float(tokens * (norms + attention + gelu + sum(adapters.values())))
    keys_values = 4 * width + 2 * size * width + adapters["k_proj"] + adapters["v_proj"]
    last = float(tokens * keys_values) if speedups.class_token_only else None
    products = float(tokens * size * (width + 3 * width + width + width + hidden + width))
    layers = vision.num_hidden_layers
    kept = {
        "none": (layers - 1) * whole + (whole if last is None else last),
        "selective": (layers - 1) * products + (products if last is None else 3.0 * tokens * size * width),
        "full": layers * float(tokens * size * width),
    }[checkpointing]
    gradients = tokens * size * (hidden + 4 * width)
    still_there = tokens * (attention + size * hidden)
    recomputed = {"none": 0.0, "selective": whole - still_there, "full": whole}[checkpointing]
    return views * kept, views * (recomputed + gradients)


def _adapter(trainable: TrainableParts, precision: Precision, part: str, name: str, linear: Linear) -> int:
    """Bytes a token that a Linear's adapter, or its own weights' gradient, keeps of its input."""
    rank, size = rank_of(trainable, part, name), precision.weights
    if rank:
        mask = precision.dropout_mask if trainable.lora.dropout else 0
        return linear.inputs * (size + mask) + rank * size
    return linear.inputs * size if getattr(trainable, part) == "full" else 0


def language_activations(
    config: LlavaNextConfig,
    trainable: TrainableParts,
    precision: Precision,
    sample: Sample,
    batch: int,
    speedups: Speedups,
    checkpointing: Checkpointing,
) -> tuple[float, float]:
    """The same for the language model: (kept, workspace), both for the whole batch."""
    text, size, linears = config.text_config, precision.weights, language_linears(config)
    kept_prefix = sample.prefix if speedups.reuse_prefix else 0
    start = sample.before_placeholder if speedups.no_prompt_gradient else kept_prefix
    end = sample.tokens - 1 if speedups.target_logits_only else sample.tokens
    tokens, queries = end - start, linears["q_proj"].outputs
    adapters = sum(_adapter(trainable, precision, "language", name, linears[name]) for name in linears)
    a_token = 2 * 4 * text.hidden_size + 2 * size * queries + 3 * size * text.intermediate_size + adapters
    whole = float(tokens * a_token + end * 2 * size * queries)  # keys and values, repeated for every query head
    products = tokens * size * sum(linear.outputs for linear in linears.values())
    past = start * 2 * size * linears["k_proj"].outputs  # keys and values of what has no gradient
    layers = text.num_hidden_layers
    kept = {
        "none": layers * whole,
        "selective": layers * float(products + tokens * size * (text.hidden_size + queries)),
        "full": layers * float(tokens * size * text.hidden_size),
    }[checkpointing]
    recomputed = 0.0 if checkpointing == "none" else whole
    gradients = tokens * size * 3 * text.intermediate_size
    unpacked = size * max(linear.parameters for linear in linears.values()) if precision.nf4 else 0.0
    prefix = layers * kept_prefix * 2 * size * linears["k_proj"].outputs  # one copy for all batches
    return batch * (kept + layers * past) + prefix, batch * (recomputed + gradients) + unpacked


def logit_bytes(
    config: LlavaNextConfig, precision: Precision, sample: Sample, batch: int, speedups: Speedups
) -> tuple[float, float]:
    """The log-probabilities kept of all targets, and the workspace of their gradient.

    Targets that take more than one chunk are computed again in the backward pass, so nothing is kept of them.
    """
    predicting = batch * (sample.targets if speedups.target_logits_only else sample.tokens)
    chunk = float(min(predicting, LOSS_CHUNK) * config.text_config.vocab_size)
    kept = 4 * chunk if predicting <= LOSS_CHUNK else 0.0
    return kept, 8 * chunk - kept + (4 + precision.weights) * chunk
