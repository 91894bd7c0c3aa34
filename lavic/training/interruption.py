"""SIGTERM, SIGINT and SLURM's warning end a run after the present step, on all processes together."""

import logging
import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

log = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """A run that was asked to stop and has saved; its exit status is 128 + the signal's number."""

    def __init__(self, signum: int, status: int | None = None) -> None:
        super().__init__(128 + signum if status is None else status)
        self.signum = signum


class SignalFlag:
    """Remembers that a signal asked this process to stop; a second SIGINT stops it at once.

    Attributes:
        received: the first signal's number, or 0.
    """

    def __init__(self) -> None:
        self.received = 0

    def install(self) -> None:
        """Replaces the handlers, Lightning's too: those run a collective inside the handler and can hang.

        Lightning puts the earlier ones back when the trainer is torn down. An ignored signal (SIGINT of a
        background job in a script) stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        asking = [signal.SIGTERM, signal.SIGINT]
        if "SLURM_JOB_ID" in os.environ:
            asking.append(signal.SIGUSR1)
        for signum in asking:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._remember)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.received and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            self.received = signum
            # Not through logging: the main thread may be inside a write to the same stream.
            os.write(
                2,
                f"\n{signal.Signals(signum).name}: saving at the end of this step, then stopping.\n".encode(),
            )


class ControlGroup:
    """Lets all processes agree on small numbers over gloo, so that no GPU is waited for."""

    def __init__(self, trainer: pl.Trainer) -> None:
        several = trainer.world_size > 1 and dist.is_available() and dist.is_initialized()
        self._group: Any = dist.new_group(backend="gloo") if several else None

    def maximum(self, *values: int) -> tuple[int, ...]:
        """The largest of each value over all processes; every process must call it."""
        if self._group is None:
            return values
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._group)
        return tuple(tensor.tolist())


def stop_now(trainer: pl.Trainer, signum: int) -> None:
    """Ends this process after an agreed signal; under SLURM's warning signal the job is queued again first.

    Raises:
        Interrupted: always.
    """
    if signum == signal.SIGUSR1 and trainer.is_global_zero:
        _requeue_slurm_job()
    launched = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
    creates = trainer._accelerator_connector.cluster_environment.creates_processes_externally
    if launched and not creates and trainer.local_rank > 0:
        # Lightning's observer kills the main process when a child that it launched ends with another status.
        raise Interrupted(signum, status=0)
    raise Interrupted(signum)


def _requeue_slurm_job() -> None:
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
        log.info("SLURM job %s is queued again; it goes on from last.ckpt.", job)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("SLURM job %s could not be queued again (%s); submit it with --resume.", job, error)
