"""Parameters and FLOP of a training step, counted matrix product by matrix product from the model's configuration.

A product of (m, k) by (k, n) is 2 m k n FLOP; element-wise work is left out, and attention counts every pair of
query and key, masked or not, as `torch.utils.flop_counter` does. The rule for frozen weights: forward 2 FLOP a
parameter and token, backward 2 more for the activations' gradient where one is needed, and 2 for the weights'
gradient in LoRA's factors alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from transformers import LlavaNextConfig

from lavic.model.activation_checkpointing import ActivationCheckpointing
from lavic.model.loading import AnyLlavaConfig, build_on_meta
from lavic.model.loss import LOSS_CHUNK
from lavic.model.parts import PARTS, Mode, TrainableParts, part_of, place_adapters, trained_parameters
from lavic.model.speedups import Speedups


@dataclass(frozen=True)
class Sample:
    """What one sample asks of the model.

    Args:
        views: views of the image.
        tokens: all text tokens, prompt and target, placeholders included.
        prefix: tokens at the start that are the same in every prompt.
        before_placeholder: tokens before the first placeholder, the prefix included.
        targets: supervised tokens.
        patches: the language model reads every patch of the views, not their class tokens.
    """

    views: int = 5
    tokens: int = 240
    prefix: int = 84
    before_placeholder: int = 120
    targets: int = 110
    patches: bool = False


@dataclass(frozen=True)
class Flop:
    """FLOP of a part: forward (recomputation included), activations' gradients, and weights' gradients."""

    forward: float = 0.0
    activation_gradients: float = 0.0
    weight_gradients: float = 0.0

    def __add__(self, other: "Flop") -> "Flop":
        return Flop(
            self.forward + other.forward,
            self.activation_gradients + other.activation_gradients,
            self.weight_gradients + other.weight_gradients,
        )

    def __mul__(self, times: float) -> "Flop":
        return Flop(self.forward * times, self.activation_gradients * times, self.weight_gradients * times)

    @property
    def backward(self) -> float:
        """Both kinds of gradient."""
        return self.activation_gradients + self.weight_gradients

    @property
    def total(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


class StepFlop(NamedTuple):
    """One sample's FLOP; `vision` includes the projector."""

    vision: Flop
    language: Flop

    @property
    def total(self) -> float:
        """Both parts, forward and backward."""
        return self.vision.total + self.language.total


class Linear(NamedTuple):
    """A linear layer's shape, and whether it has a bias."""

    inputs: int
    outputs: int
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.inputs * self.outputs + self.outputs * self.bias


def vision_linears(config: LlavaNextConfig) -> dict[str, Linear]:
    """One vision layer's."""
    width, hidden = config.vision_config.hidden_size, config.vision_config.intermediate_size
    square = Linear(width, width, bias=True)
    return {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), square),
        "fc1": Linear(width, hidden, bias=True),
        "fc2": Linear(hidden, width, bias=True),
    }


def projector_linears(config: LlavaNextConfig) -> dict[str, Linear]:
    """The projector's two."""
    width = config.text_config.hidden_size
    bias = config.multimodal_projector_bias
    return {
        "linear_1": Linear(config.vision_config.hidden_size, width, bias),
        "linear_2": Linear(width, width, bias),
    }


def language_linears(config: LlavaNextConfig) -> dict[str, Linear]:
    """One language-model layer's."""
    text = config.text_config
    width, hidden = text.hidden_size, text.intermediate_size
    head = getattr(text, "head_dim", None) or width // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    return {
        "q_proj": Linear(width, queries),
        "k_proj": Linear(width, keys),
        "v_proj": Linear(width, keys),
        "o_proj": Linear(queries, width),
        "gate_proj": Linear(width, hidden),
        "up_proj": Linear(width, hidden),
        "down_proj": Linear(hidden, width),
    }


def vision_tokens(config: LlavaNextConfig) -> int:
    """Tokens of one view, the class token included (577)."""
    vision = config.vision_config
    return int((vision.image_size // vision.patch_size) ** 2 + 1)


def parameters(config: AnyLlavaConfig) -> dict[str, int]:
    """Parameters of `vision`, `projector`, `language` (its embeddings included) and `head`, of any model.

    The model is built for it on the meta device, once in a process for each configuration. A head that shares its
    weights with the embeddings is counted there.
    """
    key = config.to_json_string()
    if key not in _COUNTED:
        counts = dict.fromkeys((*PARTS, "head"), 0)
        for name, parameter in build_on_meta(config).named_parameters():
            counts["head" if name.startswith("lm_head.") else part_of(name)] += parameter.numel()
        _COUNTED[key] = counts
    return dict(_COUNTED[key])


def trainable_parameters(config: AnyLlavaConfig, trainable: TrainableParts) -> dict[str, int]:
    """Trainable parameters of `vision`, `projector` and `language` (its head included), counted likewise."""
    key = config.to_json_string() + repr(trainable)
    if key not in _COUNTED:
        counts = dict.fromkeys(PARTS, 0)
        for _, parameter, part in trained_parameters(place_adapters(build_on_meta(config), trainable, "")):
            counts[part] += parameter.numel()
        _COUNTED[key] = counts
    return dict(_COUNTED[key])


_COUNTED: dict[str, dict[str, int]] = {}  # by the configuration and what of it is trained


def rank_of(trainable: TrainableParts, part: str, linear: str) -> int:
    """The rank of a Linear's adapter; 0 if it has none."""
    targets = trainable.lora.targets
    adapted = getattr(trainable, part) == "lora" and (targets is None or linear in targets)
    return trainable.lora.r if adapted else 0


def step_flop(
    config: LlavaNextConfig,
    trainable: TrainableParts,
    sample: Sample | None = None,
    speedups: Speedups | None = None,
    checkpointing: ActivationCheckpointing | None = None,
) -> StepFlop:
    """FLOP of one sample's forward and backward pass, recomputation under `full` checkpointing included."""
    sample, speedups = sample or Sample(), speedups or Speedups()
    checkpointing = checkpointing or ActivationCheckpointing()
    projected = vision_tokens(config) - 1 if sample.patches else 1
    class_token_only = speedups.class_token_only and not sample.patches
    vision = _vision(config, trainable, sample.views, class_token_only, projected)
    language = _language(config, trainable, sample, speedups, checkpointing.language == "full")
    if checkpointing.vision == "full":
        layers = _vision(config, trainable, sample.views, class_token_only, projected=0)
        vision = replace(vision, forward=vision.forward + layers.forward)
    return StepFlop(vision, language)


def _linear(tokens: int, linear: Linear, mode: Mode, rank: int, input_gradient: bool) -> Flop:
    """A linear layer and its adapter over `tokens` tokens."""
    base = 2.0 * tokens * linear.inputs * linear.outputs
    down, up = 2.0 * tokens * rank * linear.inputs, 2.0 * tokens * rank * linear.outputs
    return Flop(
        forward=base + down + up,
        activation_gradients=input_gradient * (base + down) + up,
        weight_gradients=(mode == "full") * base + down + up,
    )


def _attention(queries: int, keys: int, width: int) -> Flop:
    """Scores and their product with the values, for all heads, `width` wide together."""
    product = 2.0 * queries * keys * width
    return Flop(forward=2 * product, activation_gradients=4 * product)


def _adapted(trainable: TrainableParts, part: str) -> Callable[[dict[str, Linear], str, int, bool], Flop]:
    def count(linears: dict[str, Linear], name: str, tokens: int, input_gradient: bool) -> Flop:
        mode, rank = getattr(trainable, part), rank_of(trainable, part, name)
        return _linear(tokens, linears[name], mode, rank, input_gradient)

    return count


def _vision(
    config: LlavaNextConfig,
    trainable: TrainableParts,
    views: int,
    class_token_only: bool,
    projected: int,
) -> Flop:
    if not views:
        return Flop()
    vision, linears, count = config.vision_config, vision_linears(config), _adapted(trainable, "vision")
    tokens = vision_tokens(config)
    whole_layers = vision.num_hidden_layers
    read = _layers_read(config) if projected > 1 else whole_layers
    trained, full = trainable.vision != "frozen", trainable.vision == "full"
    patches = Linear(vision.num_channels * vision.patch_size**2, vision.hidden_size)
    view = _linear(tokens - 1, patches, trainable.vision, 0, input_gradient=False)
    for layer in range(whole_layers):
        last = class_token_only and layer == whole_layers - 1
        queries = 1 if last else tokens
        into_layer = layer > 0 or full  # nothing before the first layer needs a gradient
        flop = count(linears, "q_proj", queries, into_layer)
        flop += count(linears, "k_proj", tokens, into_layer) + count(linears, "v_proj", tokens, into_layer)
        flop += _attention(queries, tokens, vision.hidden_size)
        for name in ("out_proj", "fc1", "fc2"):
            flop += count(linears, name, queries, True)
        view += flop if layer < read else Flop(forward=flop.forward)
    if not trained:
        view = Flop(forward=view.forward)
    if projected:
        linears, count = projector_linears(config), _adapted(trainable, "projector")
        flop = count(linears, "linear_1", projected, trained) + count(linears, "linear_2", projected, True)
        view += flop if trained or trainable.projector != "frozen" else Flop(forward=flop.forward)
    return view * views


def _layers_read(config: LlavaNextConfig) -> int:
    """How many vision layers patch tokens come through; LLaVA's tower runs the rest as well."""
    layers = config.vision_feature_layer
    counted = config.vision_config.num_hidden_layers + 1  # the embeddings are the first of the hidden states
    return int(max(layer % counted for layer in ([layers] if isinstance(layers, int) else layers)))


def _language(
    config: LlavaNextConfig,
    trainable: TrainableParts,
    sample: Sample,
    speedups: Speedups,
    checkpointed: bool,
) -> Flop:
    kept = sample.prefix if speedups.reuse_prefix else 0
    start = sample.before_placeholder if speedups.no_prompt_gradient else kept
    end = sample.tokens - 1 if speedups.target_logits_only else sample.tokens
    without_gradient = _language_layers(config, trainable, start - kept, start)
    with_gradient = _language_layers(config, trainable, end - start, end)
    flop = with_gradient + Flop(forward=without_gradient.forward)
    if checkpointed:
        flop += Flop(forward=with_gradient.forward)
    text = config.text_config
    predicting = sample.targets if speedups.target_logits_only else end - start
    mode: Mode = "full" if trainable.language == "full" else "frozen"
    head = _linear(predicting, Linear(text.hidden_size, text.vocab_size), mode, 0, input_gradient=True)
    recomputed = head.forward if predicting > LOSS_CHUNK else 0.0
    return flop + head + Flop(forward=recomputed)


def _language_layers(config: LlavaNextConfig, trainable: TrainableParts, tokens: int, keys: int) -> Flop:
    """All layers over `tokens` tokens that attend to `keys`; gradients to the embeddings where something needs them."""
    linears, count = language_linears(config), _adapted(trainable, "language")
    seen = trainable.vision != "frozen" or trainable.projector != "frozen"

    def layer(into_layer: bool) -> Flop:
        flop = _attention(tokens, keys, linears["q_proj"].outputs)
        for name in linears:
            flop += count(linears, name, tokens, into_layer or name not in ("q_proj", "k_proj", "v_proj"))
        return flop

    later: int = config.text_config.num_hidden_layers - 1
    return layer(seen or trainable.language == "full") + layer(True) * later
