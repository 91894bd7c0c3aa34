"""What is settled before PyTorch is imported, for commands that read a task's YAML file: help, and most mistakes."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

from lavic.commands.checking import check_class, check_section, number, unknown
from lavic.commands.function_options import explained, meanings
from lavic.commands.given import CLASSES, given_options
from lavic.commands.signatures import Signature, signature_of
from lavic.errors import UserError
from lavic.ranges import check_ranges

SECTIONS = {  # of the options that are a constructor's
    "trainer": "lightning.pytorch.Trainer",
    "checkpoint": "lavic.training.checkpoint.TrainableCheckpoint",
    "non_finite_steps": "lavic.training.guards.SkipNonFiniteSteps",
    "early_stop": "lavic.training.early_stop.EarlyStop",
}
RUN = {  # what else `fit` and its kin take, and its meaning
    "config": "A YAML file; later ones are set on top. A path, or the name of one that LaViC ships, such as distill.",
    "seed_everything": "Seed of everything (default: 42).",
    "logs_dir": "Folder of the text log, the metrics and TensorBoard's events (default: logs).",
    "resume": "Go on from what the output directory holds: fit from last.ckpt, predict behind the last answer.",
    "json": "Print the metrics as one JSON object.",
    "print_config": "Print all options with their values, and end.",
    "ckpt_path": "A Lightning checkpoint to take up; --resume finds the newest.",
}
LIGHTNINGS = ("weights_only", "verbose", "return_predictions")
HELP = ("-h", "--help")


def wants_help(argv: Sequence[str]) -> bool:
    """Whether `--help` was given; `--model.help CLASS` is the parser's own."""
    return any(argument in HELP for argument in argv)


def check_task_options(
    argv: Sequence[str], own: Iterable[str], needs: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Checks the options of a training run as far as the classes' sources tell; returns them as one tree.

    Args:
        argv: the arguments, as `found_configs` returns them.
        own: the names of the command's further options.
        needs: the class paths of the `model` and the `data` that the command needs; any if None.

    Raises:
        UserError: an option is wrong or missing.
    """
    given = given_options(argv, CLASSES)
    known = [*CLASSES, *SECTIONS, *own]
    for name in given:
        if name not in known:
            raise unknown(name, known)
    check_ranges("--", **{name: number(value) for name, value in given.items()})
    for section, class_path in SECTIONS.items():
        check_section(section, class_path, given.get(section))
    asks_the_parser = any(argument.partition("=")[0].endswith(".help") for argument in argv)
    for name in CLASSES:
        chosen: Any = given.get(name)
        named = isinstance(chosen, Mapping) and "class_path" in chosen
        if not named and not asks_the_parser:
            raise UserError(f"The option {name}.class_path is missing; give --config FILE, which names it.")
        check_class(name, chosen, (needs or {}).get(name, ""))
    return given


def run_options() -> tuple[str, ...]:
    """The names of the options of `fit` and its kin that belong to no section."""
    return (*RUN, *LIGHTNINGS)


def run_help(command: str, argv: Sequence[str]) -> str:
    """The help of `fit` and its kin: every option of a run, and those of the task that `--config` names."""
    given = given_options([argument for argument in argv if argument not in HELP], CLASSES)
    lines = [f"usage: python -m lavic {command} --config FILE [--config FILE ...] [--OPTION VALUE ...]", ""]
    lines += [*explained(RUN), ""]
    for name in CLASSES:
        class_path = (given.get(name) or {}).get("class_path")
        signature = signature_of(class_path) if class_path else None
        if signature is None:
            lines += [f"--{name}.init_args.*: with --config FILE before --help, the options of its {name}.", ""]
        else:
            lines += [*_section(f"{name}.init_args", signature), ""]
    for name, class_path in SECTIONS.items():
        signature = signature_of(class_path)
        assert signature is not None
        lines += [*_section(name, signature), ""]
    return "\n".join(lines).rstrip()


def _section(name: str, signature: Signature) -> list[str]:
    return [fill(f"{signature.name}: {signature.summary}", 110), *explained(meanings(f"{name}.", signature))]
