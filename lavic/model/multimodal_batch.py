"""A batch of texts with LLaVA's own image tokens: its loss and its answers, the same for every task that has them.

What depends on lengths and sizes is made on the host, while a batch is still there: a step then waits for the device
nowhere.

Shapes: B rows, T tokens, V views, S their side in pixels, N visual tokens, D the language model's width.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from lavic.batching.padding import OfAStep, Padded
from lavic.model.generation import decode_greedily
from lavic.model.image_entry import ImageReader
from lavic.model.loading import Llava
from lavic.model.prefix_reuse import Segments, segment_batch, shared_prefix_loss
from lavic.model.speedups import Speedups
from lavic.model.visual_tokens import Normalise, fill_placeholders


class BatchImages(TypedDict):
    """The images of a batch's texts, one after the other."""

    views: NotRequired[Tensor]  # (V, 3, S, S) uint8; none where all is text
    sizes: NotRequired[list[tuple[int, int]]]  # of the images before cutting, (width, height) in pixels
    image_tokens: NotRequired[int]  # how many stand for them


class MultimodalBatch(Padded, BatchImages):
    """Texts, padded on the right where something is learned, else on the left; and their images."""

    labels: NotRequired[Tensor]  # (B, T) int64; none in prompts
    segments: NotRequired[Segments]  # of `prepare`, where there are labels
    order: NotRequired[Tensor | None]  # of `prepare`, where there are views


class SupervisedBatch(MultimodalBatch, OfAStep):
    """A micro-batch to learn from."""


def prepare(batch: MultimodalBatch, reader: ImageReader, speedups: Speedups) -> None:
    """Adds what the steps on the device need: `segments` where there are labels, `order` where there are images.

    Args:
        batch: on the host.
        reader: how images enter.
        speedups: of which `target_logits_only` counts; what else shortens a prompt needs a frozen language model.
    """
    if "labels" in batch:
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        whole = replace(speedups, reuse_prefix=False, no_prompt_gradient=False)
        batch["segments"] = segment_batch(*prompt, [reader.image_token_id], speedups=whole)
    if "views" in batch:
        batch["order"] = reader.order(batch["sizes"])


def visual_tokens(
    llava: Llava, reader: ImageReader, normalise: Normalise, batch: MultimodalBatch, views: Tensor | None = None
) -> Tensor:
    """A batch's visual tokens, (N, D), of its own views or of others as many; none for text alone."""
    if "views" not in batch:
        embeddings = llava.get_input_embeddings().weight
        return torch.zeros(0, embeddings.shape[1], device=embeddings.device, dtype=llava.dtype)
    pixels = normalise(batch["views"] if views is None else views, llava.dtype)
    if "order" not in batch:  # nothing minds waiting for one that was not prepared
        order = reader.order(batch["sizes"])
        batch["order"] = order if order is None else order.to(pixels.device)
    found = reader.visual_tokens(llava, pixels, batch["order"])
    if len(found) != batch["image_tokens"]:
        raise RuntimeError(f"{len(found)} visual tokens for {batch['image_tokens']} image tokens")
    return found


def loss_sum(llava: Llava, reader: ImageReader, batch: MultimodalBatch, visual_tokens: Tensor) -> Tensor:
    """The sum of the supervised tokens' losses, in nats, after `prepare`; a float32 scalar."""
    prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
    return shared_prefix_loss(llava, *prompt, visual_tokens, [reader.image_token_id], segments=batch["segments"])


def answers(
    llava: Llava,
    reader: ImageReader,
    batch: Padded,
    visual_tokens: Tensor,
    max_new_tokens: int,
    stop_ids: Collection[int],
) -> list[str]:
    """What the model says after each of B prompts, padded on the left; decoded greedily, without spaces at its ends."""
    with torch.no_grad():
        embeds = llava.get_input_embeddings()(batch["input_ids"])
        embeds = fill_placeholders(embeds, batch["input_ids"], visual_tokens, [reader.image_token_id])
    found = decode_greedily(llava, embeds, batch["attention_mask"], max_new_tokens, stop_ids)
    return [reader.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in found]
