"""Keeps the adapter of the best validation so far, and writes each validation's numbers as text."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

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
            folder = output / (self.name or pl_module.adapter_folder)
            self._save(trainer, pl_module, folder, {"epoch": epoch, "step": trainer.global_step, **metrics})
            said = f"{by.label} {value:{by.form}}"
            record(trainer, "adapter", step=trainer.global_step, path=str(folder), metric=by.name, value=value)
            log.info("Best LoRA adapter saved. (%s, %s)", folder, said)

    def _save(self, trainer: Any, task: Any, folder: Path, metrics: dict[str, float]) -> None:
        card = model_card(task, trainer.datamodule, metrics)
        processor, state, name = trainer.datamodule.processor, self._state, report_of(task).task
        save_adapter(task.model, processor, folder, card, task.adapter_name, state=state, task=name)


def _as_text(metrics: dict[str, float]) -> str:
    first = [f"{said}: {metrics[name]:.6f}" for name, said in PUBLISHED_NAMES.items() if name in metrics]
    rest = [f"{name}: {value:.6f}" for name, value in metrics.items() if name not in PUBLISHED_NAMES]
    return "\n".join([*first, *rest]) + "\n"
