"""`python -m lavic fit|validate|test|predict`: Lightning's command line, checked whole before anything is loaded."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from lavic.commands.options import OneSentence, found_configs, making_classes
from lavic.commands.plain_lists import lists_of_classes, with_lists
from lavic.commands.plain_words import cut, one_line
from lavic.commands.quiet import quieten
from lavic.errors import UserError
from lavic.model.loading import resolve_dtype
from lavic.training.best_adapter import BestAdapter
from lavic.training.checkpoint import TrainableCheckpoint, checkpoint_to_resume
from lavic.training.early_stop import EarlyStop
from lavic.training.failures import EndTogether, explained
from lavic.training.first_step import FirstStep
from lavic.training.guards import SkipNonFiniteSteps
from lavic.training.loops import validate_at_the_end
from lavic.training.predictions import PredictionWriter, begin
from lavic.training.preflight import Preflight
from lavic.training.run_folder import lock_output, run_id
from lavic.training.run_log import RunLog
from lavic.training.step_seeds import StepSeeds
from lavic.training.strategies import check_before_start, check_size
from lavic.training.text_log import start_text_log
from lavic.training.throughput import Throughput, device_peak
from lavic.training.used_adapter import OUTPUT, ResultsNote, UsedAdapter, best_folder, choose_adapter, results_folder
from lavic.training.validation_samples import ValidationSamples

PRECISION = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


class Parser(OneSentence, LightningArgumentParser):
    """Lightning's parser, with one sentence for a mistake."""


class LavicCLI(LightningCLI):
    """The task and the data module are named by the YAML file's `class_path`s; what they share is linked here.

    Args:
        asked: which of Lightning's subcommands is run.
        **options: as of `LightningCLI`.
    """

    def __init__(self, asked: str, **options: Any) -> None:
        self.asked = asked
        super().__init__(**options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """The one that was asked for: a parser of each costs a quarter of a second."""
        return {name: skipped for name, skipped in super().subcommands().items() if name == self.asked}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to a run as a whole."""
        parser.add_argument(
            "--logs_dir",
            type=Path,
            default=Path("logs"),
            help="Folder of the text log, the metrics and TensorBoard's events.",
        )
        parser.add_argument(
            "--resume",
            action="store_true",
            help="Go on from what the output directory holds: fit from last.ckpt, predict behind the last answer.",
        )
        parser.add_argument("--json", action="store_true", help="Print the metrics as one JSON object.")
        parser.add_lightning_class_args(TrainableCheckpoint, "checkpoint")
        parser.add_lightning_class_args(SkipNonFiniteSteps, "non_finite_steps")
        parser.add_lightning_class_args(EarlyStop, "early_stop")
        parser.link_arguments("model.init_args.base.name", "data.init_args.model_name")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.init_args.seed")

    def before_instantiate_classes(self) -> None:
        """Settles what depends on the machine: the precision, and where the output goes."""
        config = self.config[self.subcommand]
        device = _device(config.trainer.accelerator)
        dtype = resolve_dtype(config.model.init_args.base.dtype, device)
        if config.trainer.precision is None:
            config.trainer.precision = PRECISION[dtype]
        check_before_start(config.trainer.strategy, self.subcommand)
        if config.trainer.overfit_batches:
            raise UserError(
                f"trainer.overfit_batches is {config.trainer.overfit_batches}, which would replace the plan of batches;"
                " set data.init_args.max_samples instead, as configs/with/debug_overfit.yaml does."
            )
        output = Path(config.trainer.default_root_dir or OUTPUT)
        self.used: UsedAdapter | None = None
        if self.subcommand != "fit":
            output = self._settle_adapter(output)
        config.trainer.default_root_dir = str(output)
        config.trainer.enable_progress_bar = sys.stderr.isatty()
        _writable(output)
        _writable(config.logs_dir)
        if self.subcommand == "fit":
            lock_output(output, "--trainer.default_root_dir")
            run = run_id(config.logs_dir)
            start_text_log(config.logs_dir / f"{run}.log", terminal=sys.stderr.isatty())
            config.ckpt_path = checkpoint_to_resume(output, config.resume)

    def _settle_adapter(self, output: Path) -> Path:
        """Settles which adapter is evaluated, and returns the folder of its results."""
        config = self.config[self.subcommand]
        module, _, name = config.model.class_path.rpartition(".")
        task = getattr(import_module(module), name)
        if not hasattr(task, "adapter_folder") or "adapter" not in config.model.init_args:
            return output
        best = best_folder(task, config.trainer.callbacks)
        self.used = choose_adapter(config.model.init_args.adapter, output, best)
        config.model.init_args.adapter = self.used.folder
        return output if self.subcommand == "validate" else results_folder(output, self.used)  # that writes none

    def instantiate_classes(self) -> None:
        """Makes model, data and trainer."""
        with making_classes():
            super().instantiate_classes()
        if hasattr(self.model, "check_files"):
            self.model.check_files()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, with the callbacks and the logger that every run has, in this run's own folder of `logs_dir`."""
        config = self.config_init[self.subcommand]
        run = run_id(config.logs_dir)
        if config.trainer.strategy == "ddp":
            kwargs["strategy"] = DDPStrategy(broadcast_buffers=False)  # none changes; DDP would send all at each step
        if config.trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(save_dir=config.logs_dir, name="", version=run)
        try:
            trainer: Any = super().instantiate_trainer(**kwargs)
        except (ValueError, MisconfigurationException) as error:
            raise UserError(f"The trainer's options do not fit together: {cut(one_line(str(error)), 180)}") from None
        check_size(trainer.strategy)
        # in front, so that what they know is in the checkpoint that a later callback writes
        peak = device_peak(trainer.strategy.root_device)
        measured = [Throughput(peak)] if peak else []  # before the log, which reads what it measured
        first = [
            *measured,
            RunLog(config.logs_dir, run),
            FirstStep(),
            StepSeeds(config.seed_everything),
            EndTogether(),
            Preflight(),
        ]
        own = {type(callback) for callback in trainer.callbacks}  # named in the YAML file, to set their options
        usual = [kind() for kind in (BestAdapter, ValidationSamples, PredictionWriter) if kind not in own]
        trainer.callbacks[:0] = [*first, *usual, *([ResultsNote(self.used)] if self.used else [])]
        made: pl.Trainer = trainer
        validate_at_the_end(made)
        return made

    def fit(self, **kwargs: Any) -> None:
        """Trains; what breaks around it (disk, workers, memory, other processes) becomes one sentence."""
        with explained(Path(self.trainer.default_root_dir)):
            self.trainer.fit(**kwargs)
        if self.config[self.subcommand].json:
            self._print_metrics({name: float(value) for name, value in self.trainer.callback_metrics.items()})

    def validate(self, **kwargs: Any) -> None:
        """Validates, and prints the metrics."""
        with explained(Path(self.trainer.default_root_dir)):
            self._print_metrics(*self.trainer.validate(**{**kwargs, "verbose": False}))

    def test(self, **kwargs: Any) -> None:
        """Tests, and prints the metrics."""
        with explained(Path(self.trainer.default_root_dir)):
            self._print_metrics(*self.trainer.test(**{**kwargs, "verbose": False}))

    def predict(self, **kwargs: Any) -> None:
        """Predicts into the output directory."""
        resume = self.config[self.subcommand].resume
        if resume and getattr(self.datamodule, "questions", None) is None:
            raise UserError("--resume of predict goes on with a file of questions; give data.init_args.questions.")
        begin(self.trainer, resume)
        with explained(Path(self.trainer.default_root_dir)):
            self.trainer.predict(return_predictions=False, **{k: v for k, v in kwargs.items() if "return" not in k})

    def _print_metrics(self, *several: Mapping[str, float]) -> None:
        if not self.trainer.is_global_zero:
            return
        metrics = {name: value for each in several for name, value in each.items()}
        if self.config[self.subcommand].json:
            print(json.dumps(metrics, indent=1))
        else:
            print("\n".join(f"{name}: {value:.6g}" for name, value in metrics.items()))


def main(args: Sequence[str]) -> None:
    """Runs one subcommand of Lightning's; `args` starts with its name."""
    quieten()
    try:
        found = found_configs(args)
        _run(with_lists(found, lists_of_classes(found)))
    except ValueError as error:
        if isinstance(error.__cause__, UserError):  # of a constructor, which jsonargparse wraps in pages of its own
            raise error.__cause__ from None
        raise


def _run(args: list[str]) -> None:
    LavicCLI(
        args[0],
        model_class=pl.LightningModule,
        datamodule_class=pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=Parser,
        seed_everything_default=42,
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "log_every_n_steps": 10,
        },
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        args=args,
    )


def _device(accelerator: str) -> torch.device:
    return torch.device("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The output directory {folder} cannot be written ({reason}); give another.") from None
