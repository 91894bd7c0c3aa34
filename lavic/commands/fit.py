"""`python -m lavic fit|validate|test|predict`: Lightning's command line, checked whole before anything is loaded."""

import logging
import os
import re
import sys
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from transformers.utils import logging as transformers_logging

from lavic.errors import UserError
from lavic.files import read_text
from lavic.model.loading import resolve_dtype
from lavic.training.checkpoint import TrainableCheckpoint, checkpoint_to_resume
from lavic.training.early_stop import EarlyStop
from lavic.training.failures import EndTogether, explained
from lavic.training.guards import SkipNonFiniteSteps
from lavic.training.preflight import Preflight
from lavic.training.run_log import RunLog
from lavic.training.step_seeds import StepSeeds
from lavic.training.text_log import start_text_log

PRECISION = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


class Parser(LightningArgumentParser):
    """A mistake in a flag or a YAML file is one sentence, not a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises a UserError instead of printing the usage."""
        raise UserError(one_sentence(message))


class LavicCLI(LightningCLI):
    """The task and the data module are named by the YAML file's `class_path`s; what they share is linked here."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to a run as a whole."""
        parser.add_argument(
            "--logs_dir",
            type=Path,
            default=Path("logs"),
            help="Folder of the text log, the metrics and TensorBoard's events.",
        )
        parser.add_argument(
            "--resume", action="store_true", help="Go on from last.ckpt in the output directory, if there is one."
        )
        parser.add_lightning_class_args(TrainableCheckpoint, "checkpoint")
        parser.add_lightning_class_args(SkipNonFiniteSteps, "non_finite_steps")
        parser.add_lightning_class_args(EarlyStop, "early_stop")
        parser.link_arguments("model.init_args.base.name", "data.init_args.model_name")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.init_args.seed")

    def before_instantiate_classes(self) -> None:
        """Settles what depends on the machine: the precision, and where the output goes."""
        config = self.config[self.subcommand]
        if config.trainer.precision is None:
            dtype = config.model.init_args.base.dtype
            config.trainer.precision = PRECISION[resolve_dtype(dtype, _device(config.trainer.accelerator))]
        _check_strategy(config.trainer.strategy, _device(config.trainer.accelerator))
        config.trainer.default_root_dir = config.trainer.default_root_dir or "out"
        config.trainer.enable_progress_bar = sys.stdout.isatty()
        _writable(Path(config.trainer.default_root_dir))
        _writable(config.logs_dir)
        if self.subcommand == "fit":
            start_text_log(config.logs_dir / f"{run_id()}.log", terminal=sys.stdout.isatty())
            config.ckpt_path = checkpoint_to_resume(Path(config.trainer.default_root_dir), config.resume)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, with the callbacks and the logger that every run has, in this run's own folder of `logs_dir`."""
        config = self.config_init[self.subcommand]
        if config.trainer.strategy == "ddp":
            kwargs["strategy"] = DDPStrategy(broadcast_buffers=False)  # none changes; DDP would send all at each step
        if config.trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(save_dir=config.logs_dir, name="", version=run_id())
        try:
            trainer: pl.Trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, MisconfigurationException) as error:
            raise UserError(f"The trainer's options do not fit together: {one_sentence(str(error))}") from None
        # in front, so that what they know is in the checkpoint that a later callback writes
        always = [RunLog(config.logs_dir, run_id()), StepSeeds(config.seed_everything), EndTogether(), Preflight()]
        trainer.callbacks[:0] = always  # type: ignore[attr-defined]
        return trainer

    def fit(self, **kwargs: Any) -> None:
        """Trains; what breaks around it (disk, workers, memory, other processes) becomes one sentence."""
        with explained(Path(self.trainer.default_root_dir)):
            self.trainer.fit(**kwargs)


def run_id() -> str:
    """`training_YYYYMMDD_HHMMSS`, one for all processes of a run: the first sets it for those that it starts."""
    return os.environ.setdefault("LAVIC_RUN_ID", time.strftime("training_%Y%m%d_%H%M%S"))


def main(args: list[str]) -> None:
    """Runs one subcommand of Lightning's; `args` starts with its name."""
    quieten()
    _check_yaml(args)
    try:
        _run(args)
    except ValueError as error:
        if isinstance(error.__cause__, UserError):  # of a constructor, which jsonargparse wraps in pages of its own
            raise error.__cause__ from None
        raise


def _run(args: list[str]) -> None:
    LavicCLI(
        pl.LightningModule,
        pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_class=Parser,
        seed_everything_default=42,
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"use_distributed_sampler": False, "num_sanity_val_steps": 0},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        args=args,
    )


def one_sentence(message: str) -> str:
    """jsonargparse's message on one line, without its repetitions of the parser's inner names."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    return re.sub(r"\s+", " ", "; ".join(lines))


def _device(accelerator: str) -> torch.device:
    return torch.device("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _check_strategy(strategy: Any, device: torch.device) -> None:
    """What Lightning would say of DeepSpeed in pages, after the weights are loaded."""
    name = strategy if isinstance(strategy, str) else strategy.class_path
    if "deepspeed" not in name.lower():
        return
    instead = "or give another --trainer.strategy, such as ddp"
    if device.type != "cuda":
        raise UserError(f"The strategy {name} runs on CUDA GPUs only, and this run is on the {device.type}; {instead}.")
    if find_spec("deepspeed") is None:
        raise UserError(f"The strategy {name} needs the package deepspeed; `pip install deepspeed`, {instead}.")


def _check_yaml(args: list[str]) -> None:
    """Names the file and the line of a YAML mistake, which jsonargparse does not."""
    given = [value for flag, value in pairwise(args) if flag == "--config"]
    given += [arg.removeprefix("--config=") for arg in args if arg.startswith("--config=")]
    for path in (Path(value) for value in given if Path(value).is_file()):
        try:
            yaml.safe_load(read_text(path))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UserError(f"{path} is not valid YAML in line {line} ({error.problem}); mend that line.") from None
        except yaml.YAMLError:
            raise UserError(f"{path} is not valid YAML text; give a YAML file.") from None


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"The output directory {folder} cannot be written ({error.strerror}); give another.") from None


def quieten() -> None:
    """Leaves out the libraries' messages that say nothing about this run."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage() and "💡" not in record.getMessage()
    )
