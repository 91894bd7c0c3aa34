"""What it costs to read a catalogue's images without training: `embed`'s class tokens, `describe`'s texts."""

from dataclasses import dataclass, replace

from transformers import LlavaNextConfig

from lavic.cost.counting import Sample, language_linears, parameters, step_flop
from lavic.cost.gpus import Gpu
from lavic.model.loading import AnyLlavaConfig
from lavic.model.parts import TrainableParts
from lavic.model.speedups import PLAIN

NO_ADAPTERS = TrainableParts(vision="frozen", projector="full", language="frozen")  # forward, as the frozen model
LAST_ONLY = replace(PLAIN, target_logits_only=True)


def most_views(config: AnyLlavaConfig) -> tuple[int, int]:
    """The most views of an image's patches, and the tokens that the language model reads of them (5 and 2,928)."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    if not isinstance(config, LlavaNextConfig):
        return 1, side**2
    grids = [(height // config.vision_config.image_size, width // config.vision_config.image_size)
             for height, width in config.image_grid_pinpoints]  # fmt: skip
    rows, columns = max(grids, key=lambda grid: grid[0] * grid[1])
    return rows * columns + 1, side**2 + rows * side * (columns * side + 1)  # a newline after each row


@dataclass(frozen=True)
class Reading:
    """One image: FLOP of forward passes, and bytes that decoding moves, which is what decoding waits for."""

    flop: float
    decoded_bytes: float = 0.0

    def seconds(self, gpu: Gpu, mfu: float) -> float:
        """At a share of the GPU's throughput, and at its whole bandwidth."""
        return self.flop / (gpu.tflops * 1e12 * mfu) + self.decoded_bytes / (gpu.gb_per_s * 1e9)


def embedding(config: LlavaNextConfig, views: int = 5) -> Reading:
    """An image's class tokens, through stage 1's adapter."""
    sample = Sample(views=views, tokens=1, prefix=0, before_placeholder=0, targets=0)
    return Reading(step_flop(config, TrainableParts(), sample, PLAIN).vision.forward)


def describing(config: LlavaNextConfig, batch: int = 8, text: int = 100, new: int = 100) -> Reading:
    """An image's description of `new` tokens, after a prompt with `text` tokens beside the image's, in 16 bits."""
    views, image_tokens = most_views(config)
    tokens = text + image_tokens
    sample = Sample(views, tokens + 1, prefix=0, before_placeholder=0, targets=1, patches=True)
    flop = step_flop(config, NO_ADAPTERS, sample, LAST_ONLY)
    keys_values = 2 * config.text_config.num_hidden_layers * language_linears(config)["k_proj"].outputs
    weights = parameters(config)["language"]  # its embeddings, of which a row is read, are as large as the head
    moved = 2.0 * (weights / batch + keys_values * (tokens + new / 2))
    return Reading(flop.vision.forward + flop.language.forward, new * moved)
