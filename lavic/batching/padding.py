"""Token sequences -> padded tensors, and what every batch of them has."""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # label of a position that is not supervised, as in transformers and torch's cross-entropy


class Padded(TypedDict):
    """Token sequences of one length; what fills them up is masked."""

    input_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, T) int64


class Supervised(Padded):
    """Sequences of which something is to be learned."""

    labels: Tensor  # (B, T) int64; IGNORED where nothing is


class OfAStep(TypedDict):
    """What a step plan says of a micro-batch; `Task` divides its loss by `step_targets`."""

    step_targets: int  # supervised tokens of the whole optimizer step
    rows: tuple[int, ...]  # of the table of samples
    flop: NotRequired[float | None]  # set where MFU is logged


class TrainingBatch(Supervised, OfAStep):
    """A micro-batch to learn from."""


class PromptBatch(Padded):
    """Prompts without targets, padded on the left for generation, with what identifies them."""

    views: Tensor  # (V, 3, side, side) uint8, in the order of the placeholders
    samples: list[dict[str, Any]]  # item, title, image, description


def pad(sequences: Sequence[Any], target_starts: Sequence[int], pad_id: int, ghost: bool = False) -> Supervised:
    """Pads on the right.

    Args:
        sequences: token ids of each sample, prompt and target.
        target_starts: position of each sample's first supervised token.
        pad_id: fills up; neither attended to nor supervised.
        ghost: supervise nothing.
    """
    shape = (len(sequences), max(len(s) for s in sequences))
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    for row, (sequence, start) in enumerate(zip(sequences, target_starts, strict=True)):
        ids = torch.tensor(np.asarray(sequence), dtype=torch.int64)
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        if not ghost:
            labels[row, start : len(ids)] = ids[start:]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def pad_left(sequences: Sequence[Any], pad_id: int) -> Padded:
    """Pads on the left, for generation."""
    length = max(len(s) for s in sequences)
    input_ids = torch.full((len(sequences), length), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for row, sequence in enumerate(sequences):
        ids = torch.tensor(np.asarray(sequence), dtype=torch.int64)
        input_ids[row, length - len(ids) :] = ids
        attention_mask[row, length - len(ids) :] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def pad_runs(
    sequences: Sequence[Any], runs: Sequence[Sequence[tuple[int, int]]], pad_id: int, ghost: bool = False
) -> Supervised:
    """As `pad`, where what is supervised of each sample are several runs of tokens, (start, stop)."""
    batch = pad(sequences, [len(sequence) for sequence in sequences], pad_id)
    for row, spans in enumerate([] if ghost else runs):
        for start, stop in spans:
            batch["labels"][row, start:stop] = batch["input_ids"][row, start:stop]
    return batch
