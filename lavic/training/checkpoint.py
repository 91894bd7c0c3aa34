"""`last.ckpt`: everything that a killed run needs to go on, and nothing that is frozen.

A checkpoint is one of three positions in an epoch, always after a whole optimizer step:

- after a step, with more steps to come;
- before a validation, which a resumed run does first;
- after a validation, or after the last step of an epoch without one.

Lightning's own resume restores the first and skips a validation that was cut off; the loop counters are
therefore written here in the form that makes it do what the position says.
"""

import io
import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lavic.errors import UserError
from lavic.training.interruption import ControlGroup, SignalFlag, stop_now
from lavic.training.run_log import record

log = logging.getLogger(__name__)

LAST = "last.ckpt"
HYPER_PARAMETERS = ("hyper_parameters", "hparams_name", "hparams_type", "datamodule_hyper_parameters")
AFTER_STEP, BEFORE_VALIDATION, AFTER_VALIDATION = "after step", "before validation", "after validation"


class WholeFileIO(TorchCheckpointIO):
    """Writes beside, syncs and renames: a reader sees the old file or the new one. Reads data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".partial")
        buffer = io.BytesIO()  # torch.save would hide the system's error behind its own
        torch.save(checkpoint, buffer)
        try:
            with beside.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)  # gives a full disk its room back
            raise
        sync_directory(path.parent)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        try:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch names a broken file in many ways
            raise UserError(
                f"{path} cannot be read as a checkpoint ({type(error).__name__}); remove it to start afresh."
            ) from error


def sync_directory(directory: Path) -> None:
    """Makes a rename in it survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checkpoint_to_resume(output_dir: Path, resume: bool) -> Path | None:
    """The checkpoint that a run starts from, said aloud; None starts afresh."""
    last = output_dir / LAST
    if resume and last.exists():  # DeepSpeed's is a folder
        log.info("Resuming from %s.", last)
        return last
    if resume:
        log.info("--resume: there is no %s; starting afresh.", last)
    elif last.exists():
        log.warning("%s of an earlier run will be replaced; --resume would continue it.", last)
    return None


class TrainableCheckpoint(Checkpoint):
    """Keeps `last.ckpt` in the output directory: trainable parameters, optimizer, scheduler, position.

    Saved after every `every_n_steps` optimizer steps or `every_minutes`, whichever comes first, and before
    and after every validation. A step's random numbers come from `StepSeeds`, so no generator state is
    stored. It also ends the run after SIGTERM or SIGINT, once saved, on all processes at the same step.

    Args:
        every_n_steps: optimizer steps between two checkpoints; 0 leaves it to the clock.
        every_minutes: minutes between two checkpoints; 0 leaves it to the steps.
    """

    def __init__(self, every_n_steps: int = 200, every_minutes: float = 10.0) -> None:
        if every_n_steps < 0 or every_minutes < 0:
            raise UserError(
                f"every_n_steps ({every_n_steps}) and every_minutes ({every_minutes}) of the checkpoint must"
                " not be negative; 0 switches one of them off."
            )
        self.every_n_steps, self.every_minutes = every_n_steps, every_minutes
        self._flag = SignalFlag()
        self._position = AFTER_STEP
        self._stop = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl_module.strict_loading = (
            False  # frozen parameters are not in the file; on_load_checkpoint is strict
        )
        # DeepSpeed and sharded strategies write through their own engines and have no such attribute to set.
        if stage == "fit" and isinstance(getattr(trainer.strategy, "checkpoint_io", None), TorchCheckpointIO):
            trainer.strategy.checkpoint_io = WholeFileIO()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._control = ControlGroup(trainer)
        self._flag.install()
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate():
            return
        self._stop, due = self._control.maximum(self._flag.received, self._due(trainer))
        data = trainer.fit_loop._data_fetcher
        if data is not None and loop._should_check_val_fx(data):
            return  # on_validation_start saves, and stops
        if due or self._stop or loop._is_training_done:  # an epoch without validation, or max_steps, ends here
            self._save(trainer, AFTER_VALIDATION if loop._num_ready_batches_reached() else AFTER_STEP)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._can_save(trainer):
            self._save(trainer, BEFORE_VALIDATION)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        # One process may stop here: the validation is done again. Several have no common moment before its
        # end.
        if self._flag.received and trainer.world_size == 1 and trainer.state.fn == "fit":
            stop_now(trainer, self._flag.received)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._can_save(trainer):
            return
        (self._stop,) = self._control.maximum(self._flag.received)
        self._save(trainer, AFTER_VALIDATION)

    @staticmethod
    def _can_save(trainer: pl.Trainer) -> bool:
        """Whether this validation belongs to a fit and lies between steps, not amid accumulated gradients."""
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        return fitting and not trainer.fit_loop.epoch_loop._should_accumulate()

    def _due(self, trainer: pl.Trainer) -> int:
        steps = trainer.global_step - self._saved_step
        minutes = (time.monotonic() - self._saved_time) / 60
        return int(0 < self.every_n_steps <= steps or 0 < self.every_minutes <= minutes)

    def _save(self, trainer: pl.Trainer, position: str) -> None:
        """Saves, and ends the run if all processes have agreed to stop."""
        path = Path(trainer.default_root_dir) / LAST
        self._position = position
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        record(trainer, "checkpoint", step=trainer.global_step, path=str(path))
        if self._stop:
            log.info("Stopped at step %d; --resume goes on from %s.", trainer.global_step, path)
            stop_now(trainer, self._stop)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        trainable = trainable_names(pl_module)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable}
        for key in HYPER_PARAMETERS:  # objects; the run's config.yaml has them
            checkpoint.pop(key, None)
        checkpoint["split"] = _split(trainer)
        write_position(checkpoint["loops"]["fit_loop"], self._position)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        trainable = trainable_names(pl_module)
        saved = set(checkpoint.get("state_dict", trainable))  # FSDP2's strategy has taken it out
        if saved != trainable:
            name = min(saved ^ trainable)
            raise UserError(
                f"{LAST} was written with other trainable parameters ({name} is only in"
                f" {'the file' if name in saved else 'the model'}); resume with the configuration that wrote"
                " it, or start afresh without --resume."
            )
        for key, value in _split(trainer).items():
            before = checkpoint.get("split", {}).get(key)
            if before != value:
                raise UserError(
                    f"{LAST} was written with {key} {before}, this run has {value};"
                    " resume with the same, or start afresh without --resume."
                )


def trainable_names(module: torch.nn.Module) -> set[str]:
    """Names of the parameters that an optimizer may change."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def _split(trainer: pl.Trainer) -> dict[str, int]:
    """How steps are split; a position counted in micro-batches means nothing under another one."""
    return {"processes": trainer.world_size, "accumulate_grad_batches": trainer.accumulate_grad_batches}


def write_position(loops: dict[str, Any], position: str) -> None:
    """Rewrites the counters of Lightning's fit loop so that a run that loads them starts at the position."""
    validation = loops["epoch_loop.val_loop.batch_progress"]
    if position == BEFORE_VALIDATION:
        counts = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # cut off in its first batch
    else:  # a validation that was cut off and done again would count as cut off for ever
        counts = dict.fromkeys(("ready", "started", "processed", "completed"), validation["total"]["completed"])
    validation.update(total=dict(counts), current=dict(counts), is_last_batch=False)
    if position == AFTER_STEP:
        return  # the other counters that Lightning stores in on_train_batch_end are right
    batches = loops["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        if counts["completed"] < counts["ready"]:  # stored in on_train_batch_end, which counts as unfinished
            counts["completed"] = counts["ready"]
            stepped = counts is batches["current"]
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] += int(stepped)
