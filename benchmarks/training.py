"""Samples/s of stage 1's training, beside the published algorithm: `python -m benchmarks training`.

Both train the same scaled-down model (5 x 577 vision tokens and 240 text tokens a sample, vision and language in the
real proportions) in one process tree, in turns; a round's ratio compares neighbours in time, and the median of the
ratios is reported. That both compute the same is checked first, without dropout: losses of some optimizer steps.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import LlavaNextForConditionalGeneration

from benchmarks.reference import load_pixels, reference_loss
from benchmarks.workload import (
    Batches,
    build,
    image_processor,
    placeholder_ids,
    prefix_ids,
    scaled_config,
    token_ids,
    write_images,
)
from lavic.cost.counting import Sample, step_flop
from lavic.model.parts import TrainableParts
from lavic.model.prefix_reuse import FrozenPrefix, shared_prefix_loss
from lavic.model.speedups import PLAIN, Speedups, speed_up
from lavic.model.visual_tokens import Normalise, cls_tokens, project

CPU = torch.device("cpu")


def optimizer_of(llava: LlavaNextForConditionalGeneration, fused: bool) -> torch.optim.Optimizer:
    """AdamW with stage 1's settings."""
    trained = [p for p in llava.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=5e-5, weight_decay=1e-5, fused=fused)


@dataclass
class Reference:
    """The published loop: everything in this process, one sample a step."""

    llava: LlavaNextForConditionalGeneration
    images: list[Path]
    first: int = 0

    def __post_init__(self) -> None:
        self.optimizer = optimizer_of(self.llava, fused=False)
        self.image_processor = image_processor()

    def steps(self) -> Iterator[float]:
        """Each step's loss."""
        number = self.first
        while True:
            ids, labels = token_ids(self.llava.config, number)
            pixels = load_pixels(self.image_processor, self.images[number % len(self.images)], self.llava.dtype)
            loss = reference_loss(self.llava, pixels, ids[None], labels[None], placeholder_ids(self.llava.config))
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
            torch.nn.utils.clip_grad_norm_(self.llava.parameters(), 1.0)
            self.optimizer.step()
            yield loss.item()
            number += 1


@dataclass
class Ours:
    """LaViC's step: views from a loader's worker, the reused prefix, one class token."""

    llava: LlavaNextForConditionalGeneration
    images: list[Path]
    batch_size: int
    speedups: Speedups
    workers: int = 1

    def __post_init__(self) -> None:
        self.optimizer = optimizer_of(self.llava, fused=True)
        speed_up(self.llava, self.speedups)
        self.normalise = Normalise(image_processor())
        self.prefix = FrozenPrefix(prefix_ids())

    def steps(self) -> Iterator[float]:
        """Each step's loss, the mean over its batch's targets."""
        batches = Batches(self.llava.config, self.images, self.batch_size, 10_000, self.speedups)
        loader: Any = DataLoader(batches, batch_size=None, num_workers=self.workers)
        for batch in loader:
            visual = project(self.llava, cls_tokens(self.llava, self.normalise(batch["views"], self.llava.dtype)))
            loss = shared_prefix_loss(
                self.llava, batch["input_ids"], batch["attention_mask"], batch["labels"], visual,
                placeholder_ids(self.llava.config), prefix=self.prefix, segments=batch["segments"],
            ) / batch["targets"]  # fmt: skip
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.llava.parameters(), 1.0)
            self.optimizer.step()
            yield loss.item()


def check_equal(images: list[Path], steps: int = 4) -> float:
    """The largest relative difference of the losses of `steps` optimizer steps, without dropout."""
    reference = Reference(build(scaled_config(), 0.0, CPU, torch.float32), images)
    ours = Ours(build(scaled_config(), 0.0, CPU, torch.float32), images, 1, Speedups(), workers=0)
    pairs = list(zip(islice(reference.steps(), steps), islice(ours.steps(), steps), strict=True))
    difference = max(abs(theirs - own) / theirs for theirs, own in pairs)
    assert difference < 1e-4, f"the losses differ: {pairs}"
    return difference


def timed(step: Iterator[float], steps: int, samples: int) -> tuple[float, float]:
    """(seconds, CPU seconds of this process) a sample."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(step)
    count = steps * samples
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def run(rounds: int = 7, samples: int = 8, batch_sizes: tuple[int, ...] = (1, 2, 4, 8)) -> dict[str, Any]:
    """Measures and returns a table; `samples` are what each contender trains on in a round."""
    config = scaled_config()
    plain, fast = (step_flop(config, TrainableParts(), Sample(), s) for s in (PLAIN, Speedups()))
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder), 16)
        difference = check_equal(images)
        new: Callable[[], LlavaNextForConditionalGeneration] = lambda: build(config, 0.1, CPU, torch.float32)  # noqa: E731
        reference = Reference(new(), images).steps()
        contenders = {size: Ours(new(), images, size, Speedups()).steps() for size in batch_sizes}
        next(reference)
        for steps in contenders.values():
            next(steps)
        measured: list[dict[str, Any]] = []
        for _ in range(rounds):
            turn: dict[str, Any] = {}
            for size, steps in contenders.items():  # the reference runs right before each, as its neighbour in time
                theirs, own = timed(reference, samples, 1), timed(steps, samples // size, size)
                turn[str(size)] = {"reference": theirs, "ours": own}
            measured.append(turn)
    rows = []
    for name in map(str, batch_sizes):
        walls = [turn[name]["reference"][0] / turn[name]["ours"][0] for turn in measured]
        cpus = [turn[name]["reference"][1] / turn[name]["ours"][1] for turn in measured]
        rows.append({
            "batch": int(name),
            "reference samples/s": round(statistics.median(1 / t[name]["reference"][0] for t in measured), 3),
            "ours samples/s": round(statistics.median(1 / t[name]["ours"][0] for t in measured), 3),
            "ratio": round(statistics.median(walls), 3),
            "lowest": round(min(walls), 3),
            "highest": round(max(walls), 3),
            "ratio of CPU seconds": round(statistics.median(cpus), 3),
        })  # fmt: skip
    return {
        "vision to language, forward": round(plain.vision.forward / plain.language.forward, 3),
        "counted FLOP, reference to ours": round(plain.total / fast.total, 3),
        "largest relative difference of losses": difference,
        "rounds": rounds,
        "samples a round": samples,
        "rows": rows,
    }
