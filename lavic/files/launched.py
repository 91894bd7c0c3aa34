"""Which of several started processes this is, by the variables of torchrun, MPI or SLURM."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from lavic.errors import UserError

LAUNCHERS = (  # an MPI job within a SLURM allocation has the allocation's variables too, the same for all its processes
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_RANK"),  # processes that Lightning starts itself, on one machine
)


class Process(NamedTuple):
    """A process's number among all, how many there are, and its number on its machine."""

    rank: int
    world_size: int
    local_rank: int


def this_process(env: Mapping[str, str] | None = None) -> Process:
    """Returns the numbers that the launcher set; those of the only process where none did.

    Raises:
        UserError: a variable is no number.
    """
    env = os.environ if env is None else env
    for names in LAUNCHERS:
        if env.get(names[0]):
            rank, world_size, local_rank = (
                _number(name, env.get(name) or default) for name, default in zip(names, "010", strict=True)
            )
            return Process(rank, max(world_size, rank + 1), local_rank)
    return Process(0, 1, 0)


def _number(name: str, value: str) -> int:
    if not value.isdigit():
        raise UserError(f"The environment's {name} is {value}, which is no number; unset it, or start by a launcher.")
    return int(value)
