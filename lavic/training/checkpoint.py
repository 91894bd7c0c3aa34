"""`last.ckpt`: everything that a killed run needs to go on, and nothing that is frozen.

Where in an epoch a run stands is written by `position.py`; whether a run may go on from it, `resuming.py` says.
"""

import io
import logging
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lavic.errors import UserError
from lavic.files import writing_bytes
from lavic.training.best_adapter import BestAdapter
from lavic.training.interruption import ControlGroup, SignalFlag, stop_now
from lavic.training.position import AFTER_STEP, AFTER_VALIDATION, BEFORE_VALIDATION, recount, write_position
from lavic.training.resuming import (
    LAST,
    check_identity,
    check_parameters,
    identity_of,
    optimization_of,
    trainable_names,
)
from lavic.training.run_log import record

log = logging.getLogger(__name__)

HYPER_PARAMETERS = ("hyper_parameters", "hparams_name", "hparams_type", "datamodule_hyper_parameters")


class WholeFileIO(TorchCheckpointIO):
    """Writes beside, syncs and renames: a reader sees the old file or the new one. Reads data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch.save would hide the system's error behind its own
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with writing_bytes(Path(path)) as file:
            file.write(buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        try:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch names a broken file in many ways
            raise UserError(
                f"{path} cannot be read as a checkpoint ({type(error).__name__}); remove it to start afresh."
            ) from error


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
        self._identity: dict[str, Any] = {}  # of the checkpoint that was resumed

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl_module.strict_loading = False  # frozen parameters are not in the file; on_load_checkpoint is strict
        # DeepSpeed and sharded strategies write through their own engines and have no such attribute to set.
        if stage == "fit" and isinstance(getattr(trainer.strategy, "checkpoint_io", None), TorchCheckpointIO):
            trainer.strategy.checkpoint_io = WholeFileIO()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # An optimizer's schedule that asks for the number of steps has made the loader before its position is restored,
        # and Lightning would not set it then.
        trainer.fit_loop._combined_loader = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._control = ControlGroup(trainer)
        self._flag.install()
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        check_identity(self._identity, optimization_of(trainer))
        self._keep_rates(trainer, pl_module)

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
            callbacks = trainer.callbacks  # type: ignore[attr-defined]
            none_kept = any(isinstance(one, BestAdapter) and one.best is None for one in callbacks)
            missing = " No adapter is saved yet, since a stop leaves no time to validate." if none_kept else ""
            log.info("Stopped at step %d.%s --resume goes on from %s.", trainer.global_step, missing, path)
            stop_now(trainer, self._stop)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        trainable = trainable_names(pl_module)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable}
        for key in HYPER_PARAMETERS:  # objects; the run's config.yaml has them
            checkpoint.pop(key, None)
        checkpoint["identity"] = identity_of(trainer, pl_module)
        checkpoint["accumulate_grad_batches"] = trainer.accumulate_grad_batches
        write_position(checkpoint["loops"]["fit_loop"], self._position)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        check_parameters(pl_module, checkpoint.get("state_dict"))  # FSDP2's strategy has taken it out
        self._identity = checkpoint.get("identity", {})
        check_identity(self._identity, identity_of(trainer, pl_module))
        accumulated = checkpoint.get("accumulate_grad_batches", trainer.accumulate_grad_batches)
        if accumulated != trainer.accumulate_grad_batches:  # of the same samples a step
            recount(checkpoint["loops"]["fit_loop"], accumulated, trainer.accumulate_grad_batches)

    @staticmethod
    def _keep_rates(trainer: pl.Trainer, pl_module: Any) -> None:
        """A resumed run takes the learning rate and weight decay of its own configuration, not the checkpoint's."""
        for optimizer in trainer.optimizers if hasattr(pl_module, "configured_rates") else ():
            for group, (lr, weight_decay) in zip(optimizer.param_groups, pl_module.configured_rates, strict=True):
                group["lr"] *= lr / group.get("initial_lr", group["lr"])
                group["weight_decay"] = weight_decay
                if "initial_lr" in group:
                    group["initial_lr"] = lr
            for config in trainer.lr_scheduler_configs:
                config.scheduler.base_lrs = [lr for lr, _ in pl_module.configured_rates]
