"""Keeps the adapter of the best validation so far, and writes each validation's numbers as text."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from lavic.errors import UserError
from lavic.files import write_text
from lavic.model.adapters.directory import save_adapter
from lavic.model.sharding import trainable_state
from lavic.training.card import model_card
from lavic.training.protocols import report_of
from lavic.training.run_log import record

log = logging.getLogger(__name__)

PUBLISHED_NAMES = {"val_loss": "Val Loss", "val_perplexity": "Val PPL"}  # in val_metrics_epoch_N.txt, in this order


class BestAdapter(pl.Callback):
    """Saves at the end of the very validation whose monitored metric is the best, when its metrics are known.

    (A Lightning callback's `on_validation_epoch_end` runs before the task's own, which logs the metrics;
    `on_validation_end` runs after it.)

    Args:
        name: folder of the adapter inside the output directory; null takes the task's own.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.best: float | None = None
        self.last_saved = False  # where nothing was validated
        self._state: dict[str, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best value, so that a resumed run does not replace a better adapter."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """After `state_dict`."""
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes val_metrics_epoch_N.txt, and the adapter where it is the best so far."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        report = report_of(pl_module)
        metrics = report.known(trainer.callback_metrics)
        by = report.best_by
        value = metrics[by.name]
        is_best = by.improves(value, by.worst if self.best is None else self.best)
        if is_best:
            self.best = value
        # with sharded weights every process has to give its part
        sharded = is_best and getattr(pl_module, "device_mesh", None) is not None
        self._state = trainable_state(pl_module.model) if sharded else None
        if not trainer.is_global_zero:
            return
        output = Path(trainer.default_root_dir)
        output.mkdir(parents=True, exist_ok=True)
        epoch = trainer.current_epoch + 1
        write_text(output / f"val_metrics_epoch_{epoch}.txt", _as_text(metrics))
        log.info("Epoch %d: %s", epoch, report.headline_text(metrics))
        if is_best:
            folder = self.folder(trainer, pl_module)
            self._save(trainer, pl_module, folder, {"epoch": epoch, "step": trainer.global_step, **metrics})
            said = f"{by.label} {value:{by.form}}"
            record(trainer, "adapter", step=trainer.global_step, path=str(folder), metric=by.name, value=value)
            log.info("Best LoRA adapter saved. (%s, %s)", folder, said)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Saves the last step's adapter where nothing is validated, and says that it is not called the best."""
        if self.best is not None or trainer.enable_validation or not trainer.global_step:
            return
        self._state = trainable_state(pl_module.model) if getattr(pl_module, "device_mesh", None) is not None else None
        self.last_saved = True
        if not trainer.is_global_zero:
            return
        folder = self.folder(trainer, pl_module)
        self._save(trainer, pl_module, folder, {"step": trainer.global_step})
        log.warning(
            "Nothing was validated (trainer.limit_val_batches is %s), so which step is the best is not known: the"
            " adapter of the last one, step %d, is in %s.", trainer.limit_val_batches, trainer.global_step, folder,
        )  # fmt: skip

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Ends a run that leaves no adapter with the reason.

        Raises:
            UserError: training took no step, or no validation gave a finite number.
        """
        folder = self.folder(trainer, pl_module)
        if self.best is not None or self.last_saved or (trainer.ckpt_path and folder.is_dir()):
            return
        by = report_of(pl_module).best_by
        if by.name in trainer.callback_metrics:
            value = float(trainer.callback_metrics[by.name])
            raise UserError(
                f"This run leaves no adapter: {by.name} was {value} and never a finite number; lower"
                " model.init_args.lr, or look at the data."
            )
        raise UserError(
            f"This run leaves no adapter: no step was trained and validated (max_steps {trainer.max_steps}, max_epochs"
            f" {trainer.max_epochs}, limit_train_batches {trainer.limit_train_batches}); allow at least one step more."
        )

    def folder(self, trainer: Any, task: Any) -> Path:
        """The best adapter's directory."""
        return Path(trainer.default_root_dir) / (self.name or task.adapter_folder)

    def _save(self, trainer: Any, task: Any, folder: Path, metrics: dict[str, float]) -> None:
        card = model_card(task, trainer.datamodule, metrics)
        processor, state, name = trainer.datamodule.processor, self._state, report_of(task).task
        save_adapter(task.model, processor, folder, card, task.adapter_name, state=state, task=name)


def _as_text(metrics: dict[str, float]) -> str:
    first = [f"{said}: {metrics[name]:.6f}" for name, said in PUBLISHED_NAMES.items() if name in metrics]
    rest = [f"{name}: {value:.6f}" for name, value in metrics.items() if name not in PUBLISHED_NAMES]
    return "\n".join([*first, *rest]) + "\n"
