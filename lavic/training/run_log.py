"""What a run leaves to be read: `run.json` and `metrics.jsonl`, written by process 0 alone.

The formats are read by `lavic.runs.run_files`, for the monitor and the report.
"""

import json
import logging
import os
import platform
import resource
import socket
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from lavic.files import write_text
from lavic.files.rejected import reasons
from lavic.runs.run_files import process_start
from lavic.training.protocols import report_of
from lavic.training.text_log import STEPS

log = logging.getLogger(__name__)
steps_log = logging.getLogger(STEPS)

PACKAGES = ("lavic", "torch", "transformers", "peft", "lightning")


def new_run_id() -> str:
    """`training_YYYYMMDD_HHMMSS`, of now."""
    return time.strftime("training_%Y%m%d_%H%M%S")


def record(trainer: pl.Trainer, event: str, **fields: Any) -> None:
    """Writes an event of another callback to the run's `metrics.jsonl`, if the run keeps one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunLog):
            callback.write(event, **fields)


class _WarningEvents(logging.Handler):
    """Passes warnings and errors on to `metrics.jsonl`."""

    def __init__(self, run_log: "RunLog") -> None:
        super().__init__(logging.WARNING)
        self.run_log = run_log

    def emit(self, record: logging.LogRecord) -> None:
        self.run_log.write("warning", message=record.getMessage().strip())


class RunLog(Callback):
    """Describes the run in `run.json` and appends an event a line to `metrics.jsonl`.

    Losses, tokens and lengths are added up on the device and read at every `log_every_n_steps`-th optimizer
    step only, so that no other step waits for the device.

    Args:
        logs: directory of all runs.
        run_id: this run's name there.
    """

    def __init__(self, logs: Path = Path("logs"), run_id: str | None = None) -> None:
        self.run_id = run_id or new_run_id()
        self.directory = Path(logs) / self.run_id
        self.continues: dict[str, Any] | None = None
        self._writes = False
        self._ended = False

    # -- files
    # -----------------------------------------------------------------------------------------------------

    def write(self, event: str, **fields: Any) -> None:
        """Appends an event; only process 0 of a fit does.

        A full disk must not end the run here: the checkpoint, which matters more, will say so.
        """
        if not self._writes:
            return
        line = json.dumps({"time": time.time(), "event": event, **fields}, default=str)
        try:
            with (self.directory / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            sys.stderr.write(f"metrics.jsonl could not be written: {error}\n")

    def _write_run(self, trainer: pl.Trainer, **known_later: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        run = {
            "run_id": self.run_id,
            "pid": os.getpid(),
            "pid_start": process_start(os.getpid()),
            "host": socket.gethostname(),
            "started": self._started,
            "command": sys.argv,
            "output_dir": str(Path(trainer.default_root_dir).resolve()),
            "log": str(self.directory.with_suffix(".log")),
            "continues": self.continues,
            "total_steps": None,
            "epochs": trainer.max_epochs,
            "train_samples": None,
            "val_samples": None,
            "skipped": reasons(getattr(data, "left_out", ())),
            "task": report_of(trainer.lightning_module).task,
            "metrics": report_of(trainer.lightning_module).described(),
            "versions": _versions(),
            "device": _device(trainer),
            "processes": trainer.world_size,
            "trainable_parameters": None,
            **known_later,
        }
        write_text(self.directory / "run.json", json.dumps(run, indent=1))

    # -- the run
    # ---------------------------------------------------------------------------------------------------

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Which run wrote it, and where: a resumed run names it, and its curves begin with it."""
        checkpoint["run"] = {"run_id": self.run_id, "step": trainer.global_step}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._writes = trainer.is_global_zero and stage == "fit"
        self._started, self._step = time.time(), 0
        if self._writes:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._warnings = _WarningEvents(self)
            logging.getLogger().addHandler(self._warnings)
            self._write_run(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.continues = checkpoint.get("run")
        if self._writes:
            self._write_run(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self._loss = torch.zeros((), device=pl_module.device, dtype=torch.float64)
        self._start_interval(trainer)
        total = trainer.estimated_stepping_batches  # an all-reduce: on every process
        self._total_steps = int(total) if total < float("inf") else None
        if self._writes:
            counts = getattr(trainer.datamodule, "sample_counts", {})  # type: ignore[attr-defined]
            self._write_run(
                trainer,
                total_steps=self._total_steps,
                train_samples=counts.get("train"),
                val_samples=counts.get("val"),
                trainable_parameters=sum(p.numel() for p in pl_module.parameters() if p.requires_grad),
            )

    def _start_interval(self, trainer: pl.Trainer) -> None:
        self._loss.zero_()
        self._samples, self._tokens = 0, torch.zeros_like(self._loss)
        self._first_step = trainer.global_step
        self._interval_start = self._batch_end = time.perf_counter()
        self._waited = self._apart = 0.0  # seconds for data; seconds that were not training
        self._apart_since: float | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._apart_since is None:
            self._waited += now - self._batch_end
        else:  # a validation lies between, with all that other callbacks do after it
            self._apart += now - self._apart_since
            self._apart_since = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs is not None:  # Lightning has divided the loss by the accumulation
            self._loss += outputs["loss"]
        if isinstance(batch, dict) and "attention_mask" in batch:
            self._samples += len(batch["attention_mask"])
            self._tokens += batch["attention_mask"].sum()
        stepped = trainer.global_step > self._step
        self._step = trainer.global_step
        if stepped and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log_steps(trainer, pl_module)
        self._batch_end = time.perf_counter()

    def _log_steps(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = time.perf_counter() - self._interval_start - self._apart
        loss = trainer.strategy.reduce(self._loss, reduce_op="mean")
        metrics = trainer.callback_metrics
        rates = _learning_rates(trainer, pl_module)
        named = rates if len(set(rates.values())) > 1 else {}
        lr = next(iter(rates.values()))
        event: dict[str, Any] = {
            "step": trainer.global_step,
            "epoch": _epoch(trainer),
            "train_loss": float(loss) / (trainer.global_step - self._first_step),
            "lr": lr,
            "lr_by_part": named or None,
            "grad_norm": float(metrics["grad_norm"]) if "grad_norm" in metrics else None,
            "samples_per_second": self._samples * trainer.world_size / seconds,
            "tokens_per_second": float(self._tokens) * trainer.world_size / seconds,
            "mfu": float(metrics["mfu"]) if "mfu" in metrics else None,
            "data_wait": min(1.0, self._waited / seconds),
            "memory_gib": _memory_gib(trainer),
        }
        self._start_interval(trainer)
        pl_module.log("train_loss", event["train_loss"], prog_bar=True, batch_size=1)  # TensorBoard, progress bar
        for part, rate in (named or {"": lr}).items():
            pl_module.log(f"lr_{part}".rstrip("_"), rate, batch_size=1)
        self.write("train", **event)
        shown = ", ".join(f"{part} {rate:.2e}" for part, rate in named.items()) or f"{lr:.2e}"
        norm = "" if event["grad_norm"] is None else f", grad_norm {event['grad_norm']:.3f}"
        steps_log.info(
            "step %d/%s, epoch %.2f: train_loss %.4f, lr %s%s, %.2f samples/s, data wait %.0f%%, %.2f GiB",
            event["step"],
            self._total_steps,
            event["epoch"],
            event["train_loss"],
            shown,
            norm,
            event["samples_per_second"],
            100 * event["data_wait"],
            event["memory_gib"],
        )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._apart_since = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics
        known = report_of(pl_module).known(metrics)
        samples = int(known.pop("val_samples")) if "val_samples" in known else None
        self.write("validation", step=trainer.global_step, epoch=_epoch(trainer), samples=samples, **known)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # after every callback's on_fit_end, one of which may say that the run has failed
        self._end("finished", f"{trainer.global_step} steps")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        interrupted = isinstance(exception, KeyboardInterrupt | SystemExit)
        message = str(exception).strip() or type(exception).__name__
        self._end("interrupted" if interrupted else "failed", f"exit {message}" if interrupted else message)

    def _end(self, status: str, message: str) -> None:
        if not self._ended and self._writes:
            self._ended = True
            self.write("end", status=status, message=message)
            logging.getLogger().removeHandler(self._warnings)


def _learning_rates(trainer: pl.Trainer, module: Any) -> dict[str, float]:
    """By part, as the task says; of a module that is no task, its first group's."""
    if hasattr(module, "learning_rates"):
        rates: dict[str, float] = module.learning_rates()
        return rates
    return {"all": trainer.optimizers[0].param_groups[0]["lr"]}


def _epoch(trainer: pl.Trainer) -> float:
    """Epochs so far, as a fraction."""
    within = (trainer.fit_loop.epoch_loop.batch_idx + 1) / float(trainer.num_training_batches)
    return round(trainer.current_epoch + within, 4)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _device(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def _memory_gib(trainer: pl.Trainer) -> float:
    """Peak of this process: allocated on its GPU, or resident where there is none."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
