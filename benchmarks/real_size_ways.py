"""The tasks of `python -m benchmarks real-size`: what one row runs, the plain way and ours, on the same random input.

The plain way takes one sample at a time, as the published algorithm or transformers' own forward and `generate` do;
ours takes the row's whole batch. A test holds the losses of both against each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from benchmarks.reference import reference_language_loss, reference_loss
from benchmarks.workload import SAMPLE, image_processor, padded, placeholder_ids, prefix_ids, token_ids
from lavic.batching.padding import IGNORED
from lavic.cost.counting import Sample
from lavic.cost.images import most_views
from lavic.model.activation_checkpointing import ActivationCheckpointing, Checkpointing
from lavic.model.generation import decode_greedily
from lavic.model.parts import Lora, TrainableParts
from lavic.model.prefix_reuse import FrozenPrefix, segment_batch, shared_prefix_loss
from lavic.model.speedups import PLAIN, Speedups
from lavic.model.visual_tokens import Normalise, cls_tokens, project

CANDIDATES = 10
ANSWER = 12  # tokens of an ID with its end
TEXT = 120  # tokens of describe's prompt beside the image's
SIDE = 672  # pixels of a described image's height and width: five views, 2,928 tokens
STAGE_2 = replace(PLAIN, target_logits_only=True, fused_lora=True)
SEEN_SIZE = (336, 672)  # height and width of an instruction's image: three views, 1,752 tokens
SEEN_VIEWS = 3

Way = Callable[[], Tensor]
Llava: TypeAlias = LlavaNextForConditionalGeneration


@dataclass(frozen=True)
class Profile:
    """One row: what is run, how the language model is held, what is recomputed, samples (or images) a step.

    `tokens` are those of a sample; of `describe`, the new ones.
    """

    task: Literal["stage 1", "stage 2", "instruct", "embed", "describe"]
    weights: Literal["bf16", "nf4"]
    batch: int
    checkpointing: Checkpointing = "none"
    compiled: bool = False
    tokens: int = SAMPLE.tokens

    @property
    def trains(self) -> bool:
        """Whether it has a backward pass."""
        return self.task not in ("embed", "describe")

    @property
    def trainable(self) -> TrainableParts:
        """What the task trains."""
        if self.task == "stage 2":
            return TrainableParts(vision="frozen", projector="frozen", language="lora", lora=Lora(dropout=0.1))
        if self.task == "instruct":  # as configs/instruct.yaml
            lora = Lora(r=128, alpha=256, dropout=0.05)
            return TrainableParts(vision="frozen", projector="full", language="lora", lora=lora)
        return TrainableParts(lora=Lora(dropout=0.1))

    @property
    def sample(self) -> Sample:
        """What one sample asks of the model."""
        if self.task == "stage 2":
            return Sample(views=0, tokens=self.tokens, prefix=0, before_placeholder=0, targets=ANSWER)
        if self.task == "instruct":
            targets = answered(self.tokens)
            return Sample(SEEN_VIEWS, self.tokens, prefix=0, before_placeholder=0, targets=targets, patches=True)
        return SAMPLE

    @property
    def speedups(self) -> Speedups:
        """Which are on."""
        if self.task in ("stage 2", "instruct"):
            return STAGE_2
        return PLAIN if self.task == "describe" else Speedups(compile_vision=self.compiled)

    @property
    def kept(self) -> ActivationCheckpointing:
        """What is recomputed, of the part that is trained."""
        part = "language" if self.task in ("stage 2", "instruct") else "vision"
        return ActivationCheckpointing(**{part: self.checkpointing})


def answered(tokens: int) -> int:
    """Supervised tokens of an instruction's record of so many."""
    return tokens // 14


def ways(llava: Llava, row: Profile, config: LlavaNextConfig) -> tuple[Way, ...]:
    """(plain, ours): what one step computes; of `describe` also what ours computes before the first token."""
    made: dict[str, Callable[..., tuple[Way, ...]]] = {
        "stage 1": _stage_1, "stage 2": _stage_2, "instruct": _instruct, "embed": _embed, "describe": _describe,
    }  # fmt: skip
    return made[row.task](llava, row, config)


def _stage_1(llava: Llava, row: Profile, config: LlavaNextConfig) -> tuple[Way, ...]:
    device, places, prefix = llava.device, placeholder_ids(config), FrozenPrefix(prefix_ids())
    rows = padded(config, [token_ids(config, n, varied=False) for n in range(row.batch)], row.speedups)
    rows["views"] = torch.randint(0, 256, (5 * row.batch, 3, 336, 336), dtype=torch.uint8)
    batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in rows.items()}
    normalise = Normalise(image_processor()).to(device)

    def plain() -> Tensor:
        pixels = normalise(batch["views"][:5], llava.dtype)
        return reference_loss(llava, pixels, batch["input_ids"][:1], batch["labels"][:1], places)

    def ours() -> Tensor:
        visual = project(llava, cls_tokens(llava, normalise(batch["views"], llava.dtype)))
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        loss = shared_prefix_loss(llava, *prompt, visual, places, prefix=prefix, segments=batch["segments"])
        shared: Tensor = loss / batch["targets"]
        return shared

    return plain, ours


def _stage_2(llava: Llava, row: Profile, config: LlavaNextConfig) -> tuple[Way, ...]:
    device, places, rows = llava.device, placeholder_ids(config), row.batch
    shown = torch.tensor(places * CANDIDATES)
    ids, labels = _texts(config, rows, row.tokens, ANSWER)
    ids[:, 40 : 40 + len(shown)] = shown
    mask = torch.ones_like(ids)
    segments = segment_batch(ids, mask, labels, places, speedups=STAGE_2).to(device)
    ids, mask, labels = (tensor.to(device) for tensor in (ids, mask, labels))
    cls = torch.randn(rows * len(shown), config.vision_config.hidden_size, device=device, dtype=llava.dtype)

    def plain() -> Tensor:
        with torch.no_grad():
            visual = project(llava, cls[: len(shown)])
        return reference_language_loss(llava, visual, ids[:1], labels[:1], places)

    def ours() -> Tensor:
        with torch.no_grad():
            visual = project(llava, cls)
        return shared_prefix_loss(llava, ids, mask, labels, visual, places, segments=segments) / (rows * ANSWER)

    return plain, ours


def _instruct(llava: Llava, row: Profile, config: LlavaNextConfig) -> tuple[Way, ...]:
    device, rows, image_token = llava.device, row.batch, config.image_token_index
    views = torch.randint(0, 256, (SEEN_VIEWS * rows, 3, 336, 336), dtype=torch.uint8, device=device)
    sizes = torch.tensor([SEEN_SIZE] * rows)
    normalise = Normalise(image_processor()).to(device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        seen = _patches(llava, normalise(views[:SEEN_VIEWS], llava.dtype), sizes[:1])
    targets = answered(row.tokens)
    ids, labels = _texts(config, rows, row.tokens, targets)
    ids[:, 40 : 40 + len(seen)] = image_token
    mask = torch.ones_like(ids)
    segments = segment_batch(ids, mask, labels, [image_token], speedups=STAGE_2).to(device)
    ids, mask, labels = (tensor.to(device) for tensor in (ids, mask, labels))

    def plain() -> Tensor:
        pixels = normalise(views[:SEEN_VIEWS], llava.dtype)[None]
        loss: Tensor = llava(
            input_ids=ids[:1], attention_mask=mask[:1], labels=labels[:1], pixel_values=pixels, image_sizes=sizes[:1]
        ).loss
        return loss

    def ours() -> Tensor:
        visual = _patches(llava, normalise(views, llava.dtype), sizes)
        return shared_prefix_loss(llava, ids, mask, labels, visual, [image_token], segments=segments) / (rows * targets)

    return plain, ours


def _embed(llava: Llava, row: Profile, config: LlavaNextConfig) -> tuple[Way, ...]:
    views = torch.randint(0, 256, (5 * row.batch, 3, 336, 336), dtype=torch.uint8, device=llava.device)
    normalise = Normalise(image_processor()).to(llava.device)
    return (  # one image at a time, the last layer whole; several, their class tokens alone
        lambda: cls_tokens(llava, normalise(views[:5], llava.dtype)),
        lambda: cls_tokens(llava, normalise(views, llava.dtype)),
    )


def _describe(llava: Llava, row: Profile, config: LlavaNextConfig) -> tuple[Way, ...]:
    device, (count, image_tokens) = llava.device, most_views(config)
    views = torch.randint(0, 256, (count * row.batch, 3, 336, 336), dtype=torch.uint8, device=device)
    sizes = torch.tensor([[SIDE, SIDE]] * row.batch, device=device)
    normalise = Normalise(image_processor()).to(device)
    text, _ = _texts(config, 1, TEXT, 0)
    text[0, : len(prefix_ids())] = torch.tensor(prefix_ids())
    before, after = text[:, : len(prefix_ids())].to(device), text[:, len(prefix_ids()) :].to(device)
    image = torch.full((1, image_tokens), config.image_token_index, device=device)
    ids, prefix = torch.cat([before, image, after], dim=1), FrozenPrefix(prefix_ids())
    length: dict[str, Any] = {"max_new_tokens": row.tokens, "min_new_tokens": row.tokens, "do_sample": False}

    def plain() -> Tensor:
        pixels = normalise(views[:count], llava.dtype)[None]
        made: Tensor = llava.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, image_sizes=sizes[:1], **length
        )
        return made[:, ids.shape[1] :]

    def ours(new: int = row.tokens) -> Tensor:
        seen = _patches(llava, normalise(views, llava.dtype), sizes).view(row.batch, image_tokens, -1)
        embeds = torch.cat([seen, llava.get_input_embeddings()(after).expand(row.batch, -1, -1)], dim=1)
        mask = embeds.new_ones(embeds.shape[:2], dtype=torch.int64)
        return torch.tensor(decode_greedily(llava, embeds, mask, new, {-1}, prefix.keys_values(llava)))

    return plain, ours, lambda: ours(1)


def _patches(llava: Llava, pixels: Tensor, sizes: Tensor) -> Tensor:
    """All visual tokens of images of `sizes`, (height, width) each, one after the other: (N, D)."""
    return torch.cat(list(llava.model.get_image_features(pixels, sizes).pooler_output))


def _texts(config: LlavaNextConfig, rows: int, tokens: int, targets: int) -> tuple[Tensor, Tensor]:
    """Random (input_ids, labels), each (rows, tokens), of which the last `targets` are supervised."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, config.text_config.vocab_size - 100, (rows, tokens), generator=generator)
    return ids, torch.where(torch.arange(tokens) >= tokens - targets, ids, IGNORED)
