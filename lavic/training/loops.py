"""Lightning's loops of a fit, with a validation of what the last step left."""

import logging
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

log = logging.getLogger(__name__)


class EpochLoop(_TrainingEpochLoop):
    """Validates after the last step of a run too.

    Lightning alone ends a run without it where `max_steps` lies between two validations, and where the last epoch is
    not one that `check_val_every_n_epoch` validates.
    """

    is_for_the_end = False  # whether the present validation is one that the run would not have had, had it gone on

    @property
    def is_cut_off(self) -> bool:
        """Whether the checkpoint that is resumed was written before a validation that did not come to its end."""
        validated = self.val_loop.batch_progress.total
        return bool(self.restarting and validated.ready != validated.completed)

    @property
    def done(self) -> bool:
        """Whether the epoch is over, a validation that was cut off included."""
        return super().done and not (self.is_cut_off and self._ends_training())

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        stops, self.trainer.should_stop = self.trainer.should_stop, False
        scheduled = super()._should_check_val_fx(data_fetcher)
        self.trainer.should_stop = stops
        ends = self.trainer.enable_validation and self._ends_training()
        self.is_for_the_end = ends and not scheduled
        return bool(scheduled or ends)

    def _ends_training(self) -> bool:
        """Whether this batch is the run's last, as all processes see it."""
        fit_loop = self.trainer.fit_loop
        epochs = fit_loop.epoch_progress.current.processed + 1
        last_epoch = fit_loop.max_epochs not in (None, -1) and epochs >= fit_loop.max_epochs
        stopped = self.trainer.should_stop and fit_loop._can_stop_early
        all_steps = self.max_steps not in (None, -1) and self.global_step >= self.max_steps
        return bool(all_steps or stopped or (last_epoch and self._num_ready_batches_reached()))


class FitLoop(_FitLoop):
    """Comes back for a validation that was cut off after the last step."""

    epoch_loop: EpochLoop

    def setup_data(self) -> None:
        """Takes an interval between validations that is longer than an epoch for the epoch, as small data have it.

        Lightning alone refuses it.
        """
        trainer: Any = self.trainer
        interval = trainer.val_check_interval
        if not isinstance(interval, int) or trainer.check_val_every_n_epoch is None:
            super().setup_data()
            return
        had_data = self._combined_loader is not None and not self._should_reload_train_dl
        trainer.val_check_interval = 1.0
        try:
            super().setup_data()
        finally:
            trainer.val_check_interval = interval
        if had_data or self.max_batches == 0:
            return
        trainer.val_check_batch = min(interval, self.max_batches)
        if interval > self.max_batches:
            log.info("An epoch has %d batches, fewer than val_check_interval (%d).", self.max_batches, interval)

    @property
    def done(self) -> bool:
        """Whether the run is over."""
        return super().done and not (self.epoch_loop.is_cut_off and self.epoch_loop._ends_training())


def validate_at_the_end(trainer: pl.Trainer) -> None:
    """Puts these loops in the place of Lightning's own; called before a fit."""
    given = trainer.fit_loop
    loop = FitLoop(trainer, given.min_epochs, given.max_epochs)
    loop.epoch_loop = EpochLoop(trainer, given.epoch_loop.min_steps, given.epoch_loop.max_steps)
    trainer.fit_loop = loop
