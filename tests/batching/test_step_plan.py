"""Steps are the same however a global batch is split; every sample counts once; ghosts keep processes in step."""

import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from lavic.batching.step_plan import MicroBatch, StepPlan

LENGTHS = np.random.default_rng(0).integers(50, 300, 83)
TARGETS = LENGTHS // 3


def plans(batch_size: int, accumulate: int, world_size: int, seed: int | None = 1) -> list[list[MicroBatch]]:
    """Every process's micro-batches of an epoch."""
    made = [StepPlan(LENGTHS, TARGETS, batch_size, accumulate, world_size, rank, seed) for rank in range(world_size)]
    assert all(len(list(plan)) == len(plan) for plan in made)
    return [list(plan) for plan in made]


def steps(batch_size: int, accumulate: int, world_size: int) -> list[tuple[list[int], set[int]]]:
    """The samples of every optimizer step, gathered from all processes, and the counts its micro-batches carry."""
    ranks = plans(batch_size, accumulate, world_size)
    gathered = []
    for start in range(0, len(ranks[0]), accumulate):
        micro_batches = [m for rank in ranks for m in rank[start : start + accumulate]]
        samples = sorted(i for m in micro_batches if not m.ghost for i in m.indices)
        gathered.append((samples, {m.step_targets for m in micro_batches}))
    return gathered


@pytest.mark.parametrize("split", [(8, 1, 1), (4, 2, 1), (4, 1, 2), (2, 2, 2), (1, 2, 4), (1, 1, 8), (3, 1, 1)])
def test_steps_do_not_depend_on_the_split(split: tuple[int, int, int]) -> None:
    reference = steps(math.prod(split), 1, 1)
    assert steps(*split) == reference
    for samples, targets in reference:
        assert targets == {int(TARGETS[samples].sum())}


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("split", [(1, 1, 1), (4, 1, 2), (2, 3, 3), (100, 1, 2)])
def test_every_sample_counts_once_and_all_processes_take_as_many_batches(
    split: tuple[int, int, int], seed: int | None
) -> None:
    ranks = plans(*split, seed=seed)
    counted = Counter(i for rank in ranks for m in rank if not m.ghost for i in m.indices)
    assert counted == Counter(range(len(LENGTHS)))
    assert len({len(rank) for rank in ranks}) == 1
    assert max(len(m.indices) for rank in ranks for m in rank) <= split[0]


def test_epochs_differ_and_repeat_by_seed() -> None:
    plan, again = (StepPlan(LENGTHS, TARGETS, 4, seed=3) for _ in range(2))
    first = list(plan)
    plan.set_epoch(1)
    assert list(plan) != first
    again.set_epoch(1)
    assert list(plan) == list(again)
    assert list(StepPlan(LENGTHS, TARGETS, 4, seed=4)) != first


def test_batches_are_of_similar_length() -> None:
    def padding(batches: list[MicroBatch]) -> float:
        padded = sum(len(m.indices) * LENGTHS[list(m.indices)].max() for m in batches)
        return float(1 - LENGTHS.sum() / padded)

    shuffled = np.random.default_rng(1).permutation(len(LENGTHS))
    unsorted = [MicroBatch(tuple(shuffled[i : i + 8]), 0) for i in range(0, len(shuffled), 8)]
    assert padding(plans(8, 1, 1)[0]) < padding(unsorted) / 3


# 34 and 49: two short steps
KINDS = np.random.default_rng(3).permutation(np.arange(len(LENGTHS)) >= 34).astype(np.int64)


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("split", [(8, 1, 1), (4, 2, 1), (4, 1, 2), (2, 2, 2), (1, 2, 4), (1, 1, 8), (3, 2, 2)])
def test_kinds_are_kept_apart_at_the_same_time_on_every_process(split: tuple[int, int, int], seed: int | None) -> None:
    batch_size, accumulate, world_size = split
    if seed is None:
        accumulate = 1
    made = [
        StepPlan(LENGTHS, TARGETS, batch_size, accumulate, world_size, rank, seed, KINDS) for rank in range(world_size)
    ]
    ranks = [list(plan) for plan in made]
    assert {len(plan) for plan in made} == {len(ranks[0])}
    assert all(len(rank) == len(ranks[0]) for rank in ranks)
    for together in zip(*ranks, strict=True):
        assert len({int(kind) for m in together for kind in KINDS[list(m.indices)]}) == 1
        assert all(len(m.indices) <= batch_size for m in together)
    seen = Counter(i for rank in ranks for m in rank if not m.ghost for i in m.indices)
    assert seen == Counter(range(len(LENGTHS)))
    per_step = batch_size * accumulate * world_size
    reference = list(StepPlan(LENGTHS, TARGETS, per_step, seed=seed, kinds=KINDS))
    for number, start in enumerate(range(0, len(ranks[0]), accumulate)):
        step = [m for rank in ranks for m in rank[start : start + accumulate]]
        samples = sorted(i for m in step if not m.ghost for i in m.indices)
        assert samples == sorted(reference[number].indices)
        assert {m.step_targets for m in step} == {int(TARGETS[samples].sum())}


@pytest.mark.parametrize("seed", range(150))
def test_any_mixture_keeps_kinds_apart_and_every_sample_once(seed: int) -> None:
    """Kinds, lengths, sizes and splits drawn by chance, whole epochs of all processes side by side."""
    rng = np.random.default_rng(seed)
    count, (batch_size, accumulate, world_size) = int(rng.integers(1, 120)), (int(n) for n in rng.integers(1, 5, 3))
    lengths = rng.integers(1, 300, count)
    targets = rng.integers(1, 40, count)
    kinds = (rng.random(count) < rng.choice([0, 0.02, 0.5, 0.98, 1])).astype(np.int64)
    shuffled = bool(rng.integers(2))
    accumulate = accumulate if shuffled else 1
    every = []
    for rank in range(world_size):
        plan = StepPlan(
            lengths, targets, batch_size, accumulate, world_size, rank, seed if shuffled else None, kinds
        )  # fmt: skip
        plan.set_epoch(int(rng.integers(0, 1)))
        made = list(plan)
        assert len(made) == len(plan)
        every.append(made)
    assert len({len(made) for made in every}) == 1
    for together in zip(*every, strict=True):
        assert len({int(kind) for m in together for kind in kinds[list(m.indices)]}) == 1
        assert all(1 <= len(m.indices) <= batch_size for m in together)
    counted = Counter(i for made in every for m in made if not m.ghost for i in m.indices)
    assert counted == Counter(range(count))
    for start in range(0, len(every[0]), accumulate):
        step = [m for made in every for m in made[start : start + accumulate]]
        assert {m.step_targets for m in step} == {sum(int(targets[i]) for m in step if not m.ghost for i in m.indices)}


def test_steps_are_made_as_they_are_asked_for() -> None:
    """A million steps of one sample: a list of them would take some hundred bytes each."""
    lengths = np.ones(1_000_000, dtype=np.int64)
    plan = StepPlan(lengths, lengths, 1, seed=1)
    tracemalloc.start()
    batches = iter(plan)
    first = [next(batches).indices[0] for _ in range(100)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(first)) == 100
    assert most < 60e6


def test_one_kind_is_as_none() -> None:
    one = StepPlan(LENGTHS, TARGETS, 4, 2, seed=1, kinds=np.ones_like(LENGTHS))
    assert list(one) == list(StepPlan(LENGTHS, TARGETS, 4, 2, seed=1))
