"""Which samples go into which optimizer step, micro-batch and process.

A step's samples depend on the seed, the epoch and the global batch size alone, never on how that batch is split:
batch 1 x accumulation 8, batch 8, and batch 4 on 2 processes make the same steps. Within a step, samples of similar
length share a micro-batch; steps are filled from windows of shuffled samples that are sorted by length, so that
little padding is computed and every step is still a random draw of its window.

Each micro-batch carries the number of supervised tokens in the whole step, so that the loss can be divided by it
before the backward pass, on every process alike and without any communication.

Samples of different kinds, such as text alone and text with images, can be kept apart: a step then holds one kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Lengths = npt.NDArray[np.integer[Any]]  # whichever is small: there may be millions

WINDOW = 32  # steps whose samples are sorted by length together


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The samples of one forward pass.

    Attributes:
        indices: rows of the sample table.
        step_targets: supervised tokens in the whole optimizer step, over all its micro-batches and processes.
        ghost: a stand-in that keeps a process in step when it has no sample left; nothing in it is supervised.
    """

    indices: tuple[int, ...]
    step_targets: int
    ghost: bool = False


class StepPlan(Sampler[MicroBatch]):
    """This process's micro-batches of an epoch, in order.

    Every process gets the same number of micro-batches: where samples run out, ghosts fill in, so that collective
    operations (DDP, FSDP) stay matched while every sample counts exactly once.

    Args:
        lengths: tokens of every sample, (N,).
        target_lengths: supervised tokens of every sample, (N,).
        batch_size: samples of a micro-batch.
        accumulate: micro-batches of a step on each process.
        world_size: number of processes.
        rank: this process.
        seed: of the order; None keeps samples in order of length, for evaluation.
        kinds: of every sample, (N,); samples of two kinds never share a step, so that all processes run the same kind
            at the same time. Null is one kind.
    """

    def __init__(
        self,
        lengths: Lengths,
        target_lengths: Lengths,
        batch_size: int,
        accumulate: int = 1,
        world_size: int = 1,
        rank: int = 0,
        seed: int | None = None,
        kinds: Lengths | None = None,
    ) -> None:
        self.kinds = np.zeros(len(lengths), np.int8) if kinds is None else kinds
        self.lengths, self.target_lengths = lengths, target_lengths
        self.batch_size, self.accumulate = batch_size, accumulate
        self.world_size, self.rank = world_size, rank
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Micro-batches of an epoch on this process."""
        per_step = self.batch_size * self.accumulate * self.world_size
        sizes = np.unique(self.kinds, return_counts=True)[1]
        *earlier, last = [int(rest) for rest in sizes % per_step if rest] or [0]
        full = int((sizes // per_step).sum()) + len(earlier)
        return full * self.accumulate + -(-last // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[MicroBatch]:
        steps = self.steps()
        step = next(steps, None)
        while step is not None:
            following = next(steps, None)
            targets = int(self.target_lengths[step].sum())
            rows = -(-len(step) // (self.batch_size * self.world_size))
            if following is not None:  # only an epoch's last step may have fewer micro-batches
                rows = self.accumulate
            slots = rows * self.world_size
            for row, samples in enumerate(np.array_split(step, slots)):
                if row % self.world_size != self.rank:
                    continue
                if len(samples):
                    yield MicroBatch(tuple(int(i) for i in samples), targets)
                else:
                    yield MicroBatch((int(step[0]),), targets, ghost=True)
            step = following

    def steps(self) -> Iterator[Lengths]:
        """The samples of every optimizer step of the epoch, each sorted by length; made as they are asked for."""
        per_step = self.batch_size * self.accumulate * self.world_size
        rng = None if self.seed is None else np.random.default_rng([self.seed, self.epoch])
        if rng is None:
            order: Lengths = np.argsort(self.lengths, kind="stable")
        else:
            order = np.arange(len(self.lengths), dtype=np.int32 if len(self.lengths) < 2**31 else np.int64)
            rng.shuffle(order)
        wholes: list[Lengths] = []
        rests: list[Lengths] = []
        for kind in np.unique(self.kinds):
            own = order if (self.kinds == kind).all() else order[self.kinds[order] == kind]
            whole, rest = np.split(own, [len(own) // per_step * per_step])
            for start in range(0, len(whole), WINDOW * per_step):
                self._sort(whole[start : start + WINDOW * per_step])
            self._sort(rest)
            wholes.append(whole)
            rests += [rest] if len(rest) else []
        full = (
            wholes[0] if len(wholes) == 1 else np.concatenate([order[:0], *wholes])
        )  # one array: a list of millions of steps would be held in memory
        count = len(full) // per_step
        for number in range(count) if rng is None else rng.permutation(count):
            yield full[number * per_step : (number + 1) * per_step]
        yield from rests

    def _sort(self, samples: Lengths) -> None:
        """By length, in place."""
        samples[:] = samples[np.argsort(self.lengths[samples], kind="stable")]
