"""What breaks around a run, told in one sentence; and no process left hanging when another one fails."""

import errno
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lavic.errors import UserError

SECONDS_TO_END = 5
GO_ON = "then go on with --resume: the last checkpoint and the best adapter are whole"
LOST_PEER = re.compile(r"closed by peer|reset by peer|Broken pipe|ncclRemoteError|remote process exited", re.I)
WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\)? (?:is killed by signal: (\w+)|exited unexpectedly)")


@contextmanager
def explained(output_dir: Path) -> Iterator[None]:
    """Turns failures of the disk, loader workers, GPU memory and other processes into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        sentence = explain(error, output_dir)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def explain(error: BaseException, output_dir: Path) -> str | None:
    """One sentence that names the cause and the way out; None where the traceback says more."""
    text = str(error)
    if "lavic.errors.UserError: " in text:  # a worker's, with the worker's traceback before it
        return text.strip().rpartition("lavic.errors.UserError: ")[2]
    killed = ""
    if worker := WORKER.search(text):
        killed = f"Data loader worker {worker[1].strip()} was killed{f' by {worker[2]}' if worker[2] else ''}"
    elif isinstance(error, ConnectionResetError):  # the pipe to a worker; between processes it is a RuntimeError
        killed = "Data loader workers were killed"
    if killed:
        return f"{killed}, often for want of memory; lower data.init_args.num_workers or free memory, {GO_ON}."
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text or "os error 28" in text:
        return f"The disk of {output_dir} is full ({text}); make room, {GO_ON}."
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        path = getattr(error, "filename", None) or output_dir
        return f"{path} cannot be written ({text}); make it writable, {GO_ON}."
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "The GPU's memory is full; halve data.init_args.batch_size and double trainer.accumulate_grad_batches,"
            f" which trains the same, end other processes on it, or see what `python -m lavic plan` advises, {GO_ON}."
        )
    if LOST_PEER.search(text):
        return f"Another process of this run has failed and says why beside this line; mend that, {GO_ON}."
    return None


class EndTogether(Callback):
    """When process 0 fails, ends the processes that it started; they may wait for it in a collective.

    (The other way round Lightning watches over the started processes itself, and torchrun and SLURM
    over theirs.)
    """

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            end_processes(launcher.procs)


def end_processes(processes: list[subprocess.Popen[bytes]], seconds: float = SECONDS_TO_END) -> None:
    """Waits for the processes to end, so that they can say what failed, and kills those that do not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(p.poll() is None for p in processes):
        time.sleep(0.05)
    for process in processes:
        if process.poll() is None:
            process.kill()
