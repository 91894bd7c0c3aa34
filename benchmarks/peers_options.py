"""What `python -m benchmarks peers` tells a program to do: one command line, the same for each of them."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """A program's part.

    Attributes:
        base: the checkpoint.
        records: a file of LLaVA's form.
        images: their folder.
        way: what is trained, of `benchmarks.peers.WAYS`.
        program: which of them it is, where one file is several.
        order: `random`, as it comes, or `sequential`.
        batch: records of a step.
        steps: optimizer steps of a turn.
        max_steps: steps in all.
        rank: of LoRA; its alpha is twice that.
        dropout: of LoRA.
        lr: the learning rate, constant.
        seed: of weights, dropout and order.
    """

    base: Path
    records: Path
    images: Path
    way: str
    program: str
    order: str
    batch: int
    steps: int
    max_steps: int
    rank: int
    dropout: float
    lr: float
    seed: int

    def arguments(self) -> list[str]:
        """A command line from which `options` makes the same again."""
        return [f"--{field.name}={getattr(self, field.name)}" for field in fields(self)]


def options() -> Options:
    """Of this process's command line."""
    parser = argparse.ArgumentParser()
    for field in fields(Options):
        parser.add_argument(f"--{field.name}", type=field.type, required=True)
    return Options(**vars(parser.parse_args()))
