"""What a training micro-batch costs by its own lengths; padding and recomputation are no work of the method's."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import LlavaNextConfig

from lavic.batching.padding import IGNORED
from lavic.cost.counting import Sample, step_flop
from lavic.model.multimodal_batch import MultimodalBatch
from lavic.model.parts import TrainableParts
from lavic.model.speedups import Speedups


def samples_of(
    input_ids: Tensor, attention_mask: Tensor, labels: Tensor, placeholder_ids: Sequence[int] = (), prefix: int = 0
) -> list[Sample]:
    """Each row of a right-padded batch, all (B, T), as what is counted of it; reads them, so on the host.

    Args:
        input_ids, attention_mask, labels: the batch.
        placeholder_ids: whose rows are made of views in this step; none where class tokens are given.
        prefix: tokens at every row's start whose keys and values are kept.
    """
    placeholder = torch.isin(input_ids, torch.tensor(list(placeholder_ids))) & attention_mask.bool()
    columns = torch.arange(input_ids.shape[1])
    first = torch.where(placeholder, columns, attention_mask.sum(1, keepdim=True)).min(dim=1).values
    counts = (placeholder.sum(1), attention_mask.sum(1), first, labels[:, 1:].ne(IGNORED).sum(1))
    return [
        Sample(views=views, tokens=tokens, prefix=prefix, before_placeholder=before, targets=targets)
        for views, tokens, before, targets in zip(*(count.tolist() for count in counts), strict=True)
    ]


def start_of_all(tokens: int) -> Sample:
    """What the rows of a batch start with, computed once for them; the token behind it is not run."""
    return Sample(views=0, tokens=tokens + 1, prefix=0, before_placeholder=0, targets=0)


def batch_flop(
    config: LlavaNextConfig, trainable: TrainableParts, samples: Sequence[Sample], speedups: Speedups
) -> float:
    """FLOP of a training step's forward and backward pass over these samples."""
    return sum(step_flop(config, trainable, sample, speedups).total for sample in samples)


def multimodal_batch_flop(
    config: LlavaNextConfig, trainable: TrainableParts, batch: MultimodalBatch, speedups: Speedups, patches: bool = True
) -> float:
    """FLOP of a training step over a batch of `model.multimodal_batch`, whose images may stand anywhere or nowhere.

    Args:
        config: the LLaVA's.
        trainable: what of it is trained.
        batch: with labels, on the host.
        speedups: of the step.
        patches: the language model reads the views' patches, not their class tokens.
    """
    first, *others = samples_of(batch["input_ids"], batch["attention_mask"], batch["labels"])
    views = len(batch["views"]) if "views" in batch else 0  # a view costs the same, whichever row it belongs to
    samples = [replace(first, views=views, patches=patches), *others]
    whole = replace(speedups, reuse_prefix=False, no_prompt_gradient=False)
    return batch_flop(config, trainable, samples, whole)
