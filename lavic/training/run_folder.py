"""A run's own folder in `logs`, and the lock on the directory that it writes."""

import errno
import fcntl
import os
import time
from itertools import count
from pathlib import Path
from typing import IO

from lavic.errors import UserError
from lavic.files.launched import this_process

NAME = "LAVIC_RUN_ID"  # tells processes that a run starts which run is theirs
LOCK = ".in_use"
_held: dict[Path, IO[str]] = {}  # an open file keeps its lock until its process ends, however it ends


def is_first_process() -> bool:
    """Whether this process is a run's first, by what Lightning, torchrun, MPI and SLURM set before any starts."""
    return this_process().rank == 0


def run_id(logs: Path) -> str:
    """`training_YYYYMMDD_HHMMSS`, with a number behind it where another run has that name already.

    The first process makes the folder, so that two runs started in one second have two.
    """
    if NAME not in os.environ:
        started = time.strftime("training_%Y%m%d_%H%M%S")
        os.environ[NAME] = _claimed(logs, started) if is_first_process() else started
    return os.environ[NAME]


def _claimed(logs: Path, name: str) -> str:
    logs.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        numbered = name if number == 1 else f"{name}_{number}"
        try:
            (logs / numbered).mkdir()
        except FileExistsError:
            continue
        return numbered
    raise AssertionError("count() has no end")


def lock_output(folder: Path, option: str) -> None:
    """Keeps other runs out of a directory for as long as this process lives; `option` is the one that names it.

    Raises:
        UserError: a run is in it.
    """
    if not is_first_process():
        return
    file = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            file.close()  # a file system without locks
            return
        file.seek(0)
        process = file.read().strip() or "unknown"
        file.close()
        raise UserError(
            f"The directory {folder} is in use by another run (process {process}); give this one its own by {option},"
            " or wait for the other to end."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _held[folder.resolve()] = file
