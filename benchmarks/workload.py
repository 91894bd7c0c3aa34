"""The samples and the models that the benchmarks run on: random weights, random tokens, images of noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    MistralConfig,
)

from lavic.batching.padding import IGNORED
from lavic.catalogue.images import open_image
from lavic.cost.counting import Sample
from lavic.model.parts import Lora, TrainableParts, place_adapters, unwrap
from lavic.model.prefix_reuse import segment_batch
from lavic.model.speedups import Speedups
from lavic.model.views import cut_views, restrict_grid

SAMPLE = Sample()  # 240 text tokens: 84 the same in every prompt, 36 of title, 120 from the first placeholder on


def scaled_config() -> LlavaNextConfig:
    """A small model whose vision and language forward FLOP stand as 1.93 to 3.44, and whose head takes 2% of them."""
    vision = CLIPVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=3,
        image_size=336, patch_size=14,
    )  # fmt: skip
    text = MistralConfig(
        hidden_size=1024, intermediate_size=3584, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=2048, sliding_window=None, max_position_embeddings=4096,
    )  # fmt: skip
    return LlavaNextConfig(vision_config=vision, text_config=text, image_token_index=2000)


def toy_config() -> LlavaNextConfig:
    """So small that a benchmark's program can be checked in seconds; its figures mean nothing."""
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=336, patch_size=56
    )
    text = MistralConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=512, sliding_window=None, max_position_embeddings=1024,
    )  # fmt: skip
    return LlavaNextConfig(vision_config=vision, text_config=text, image_token_index=500)


def image_processor() -> LlavaNextImageProcessor:
    """Cuts every image into five views of 336 x 336."""
    side = {"height": 336, "width": 336}
    return restrict_grid(LlavaNextImageProcessor(size={"shortest_edge": 336}, crop_size=side), "five")


def placeholder_ids(config: LlavaNextConfig) -> list[int]:
    """The last five rows of the vocabulary."""
    last: int = config.text_config.vocab_size
    return list(range(last - 5, last))


def build(
    config: LlavaNextConfig,
    dropout: float,
    device: torch.device,
    dtype: torch.dtype,
    trainable: TrainableParts | None = None,
) -> LlavaNextForConditionalGeneration:
    """Random weights on `device`, LoRA (stage 1's) in float32, both factors nonzero, training mode."""
    llava = random_llava(config, device, dtype)
    model = place_adapters(llava, trainable or TrainableParts(lora=Lora(dropout=dropout)), "", seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    return unwrap(model).train()


def random_llava(
    config: LlavaNextConfig, device: torch.device, dtype: torch.dtype
) -> LlavaNextForConditionalGeneration:
    """A frozen model of random weights, drawn on `device`."""
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with device:
        llava = LlavaNextForConditionalGeneration(config).requires_grad_(False)
    torch.set_default_dtype(default)
    return llava


def write_images(folder: Path, count: int, side: int = 800) -> list[Path]:
    """Product-sized JPEG files."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(coarse).resize((side, side)).save(paths[-1], quality=90)
    return paths


def token_ids(config: LlavaNextConfig, number: int, varied: bool = True) -> tuple[Tensor, Tensor]:
    """One sample's (input_ids, labels), each (T,); titles and targets vary by up to 8 tokens around the mean."""
    generator = torch.Generator().manual_seed(number)
    usable = config.text_config.vocab_size - 100

    def draw(length: int) -> Tensor:
        return torch.randint(3, usable, (length,), generator=generator)

    title, target = (int(torch.randint(-8, 9, (1,), generator=generator)) if varied else 0 for _ in range(2))
    prefix = torch.arange(3, 3 + SAMPLE.prefix)
    template = SAMPLE.tokens - SAMPLE.before_placeholder - 5 - SAMPLE.targets
    ids = torch.cat([
        prefix, draw(SAMPLE.before_placeholder - SAMPLE.prefix + title), torch.tensor(placeholder_ids(config)),
        draw(template), draw(SAMPLE.targets + target),
    ])  # fmt: skip
    labels = ids.clone()
    labels[: len(ids) - SAMPLE.targets - target] = IGNORED
    return ids, labels


def prefix_ids() -> list[int]:
    """What every sample starts with."""
    return list(range(3, 3 + SAMPLE.prefix))


@dataclass
class Batches(Dataset[dict[str, Any]]):
    """Whole batches of `batch_size` samples, made in a loader's worker: views as uint8, tokens padded and cut."""

    config: LlavaNextConfig
    images: list[Path]
    batch_size: int
    count: int
    speedups: Speedups

    def __post_init__(self) -> None:
        self.image_processor = image_processor()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        numbers = range(index * self.batch_size, (index + 1) * self.batch_size)
        rows = [token_ids(self.config, number) for number in numbers]
        views = [cut_views(self.image_processor, open_image(self.images[n % len(self.images)])) for n in numbers]
        return {"views": torch.cat(views), **padded(self.config, rows, self.speedups)}


def padded(config: LlavaNextConfig, rows: list[tuple[Tensor, Tensor]], speedups: Speedups) -> dict[str, Any]:
    """Right-padded tensors, and where they are cut."""
    pad = torch.nn.utils.rnn.pad_sequence
    batch: dict[str, Any] = {
        "input_ids": pad([ids for ids, _ in rows], batch_first=True),
        "attention_mask": pad([torch.ones_like(ids) for ids, _ in rows], batch_first=True),
        "labels": pad([labels for _, labels in rows], batch_first=True, padding_value=IGNORED),
    }
    segments = segment_batch(
        **batch, placeholder_ids=placeholder_ids(config), prefix_ids=prefix_ids(), speedups=speedups
    )
    return {**batch, "segments": segments, "targets": int((batch["labels"] != IGNORED).sum())}
