"""The one reader of YAML files and flags, for every command.

What `fit` takes, the others take, and refuse what it refuses: several `--config` files, each set on top of those
before it, then flags; a mistake is one sentence. Nothing here imports torch before a task is asked for.
"""

import importlib
import re
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import SUPPRESS, ArgumentParser, Namespace

from lavic.commands.early import check_task_options, wants_help
from lavic.commands.plain_lists import lists_of_classes, with_lists
from lavic.commands.plain_words import in_plain_words, one_line
from lavic.errors import UserError
from lavic.files import read_text

CHECKOUT = Path(__file__).parents[2] / "configs"
INSTALLED = Path(sys.prefix) / "share" / "lavic" / "configs"
RUN_SECTIONS = ("trainer", "checkpoint", "early_stop", "non_finite_steps")  # of a run's file, beside model and data

LIST = re.compile(r"^(typing\.Optional\[)?(list|collections\.abc\.Sequence|typing\.(List|Sequence))\[")
MISSING = re.compile(r"Requirement .* not met|No module named")


@contextmanager
def making_classes() -> Iterator[None]:
    """What a constructor refuses, and what lacks a package, as one sentence; the parser wraps both in its own words."""
    try:
        yield
    except (ValueError, ImportError) as error:
        if refused := _user_error(error):
            raise refused from None
        if reasons := [line.strip(" -") for line in str(error).splitlines() if MISSING.search(line)]:
            raise UserError(f"A class of the configuration needs another package ({reasons[0]}).") from None
        raise


def _user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake among an error's causes."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


class OneSentence:
    """For a parser: a mistake in a flag or a YAML file is one sentence, not a page of usage."""

    prog: str

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises a UserError instead of printing the usage."""
        if refused := _user_error(ex):  # of a constructor or a reader
            raise refused
        said = in_plain_words(message)
        raise UserError(f"{said} (see --help)." if self.prog.startswith("python -m lavic") else f"{said}.")


class OptionParser(OneSentence, ArgumentParser):
    """jsonargparse's parser, for commands that need no trainer."""

    def parse(self, argv: Sequence[str]) -> Namespace:
        """The options, the configuration files found, named and checked first. Raises UserError."""
        found = found_configs(argv)
        own = {action.dest for action in self._actions if LIST.search(str(getattr(action, "_typehint", "")))}
        positional = any(not action.option_strings for action in self._actions)
        return self.parse_args(with_lists(found, own | lists_of_classes(found), several=not positional))

    def format_help(self, formatter: Any = None) -> str:
        """The help without a run's hundred options, which `fit --help` has and which would bury the command's own."""
        hidden = {action: action.help for action in self._actions if action.dest.partition(".")[0] in RUN_SECTIONS}
        for action in hidden:
            action.help = SUPPRESS
        try:
            text: str = super().format_help(formatter)
        finally:
            for action, shown in hidden.items():
                action.help = shown  # what is suppressed would not be in --print_config
        return text

    def made(self, argv: Sequence[str]) -> Namespace:
        """The same, with objects in the place of their options. Raises UserError."""
        return self.instantiated(self.parse(argv))

    def instantiated(self, options: Namespace) -> Namespace:
        """Parsed options with objects in their place. Raises UserError."""
        with making_classes():
            made: Namespace = self.instantiate_classes(options)
        return made


def with_new_names(argv: Sequence[str]) -> list[str]:
    """The arguments of a command that writes one file, its `--output` of 0.2 as `--out`; the old name goes with 0.4."""
    return [re.sub(r"^--output(?==|$)", "--out", argument) for argument in argv]


def with_long_names(argv: Sequence[str]) -> list[str]:
    """The arguments of describe, whose YAML files have `output`: its `--out` by that name."""
    return [re.sub(r"^--out(?==|$)", "--output", argument) for argument in argv]


def found_configs(argv: Sequence[str]) -> list[str]:
    """The arguments with each `--config NAME` as the file that it means.

    A name is a path, or else that of a file which LaViC ships: `distill`, `with/8gb`, `configs/distill.yaml`.

    Raises:
        UserError: there is no such file, or it is not valid YAML (names the line).
    """
    found: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag != "--config":
            found.append(argument)
            continue
        if not equals:
            value = next(arguments, "")
        if not value:
            raise UserError("--config has no value; write --config FILE.")
        path = _config_file(value)
        _check_yaml(path)
        found += ["--config", str(path)]
    return found


def _config_file(name: str) -> Path:
    given = Path(name)
    if given.is_file():
        return given
    if given.is_dir():
        raise UserError(f"{name} is a folder; give the path of a YAML file.")
    short = re.sub(r"\.ya?ml$", "", given.as_posix().rpartition("configs/")[2])
    places = [folder / f"{short}.yaml" for folder in (CHECKOUT, INSTALLED)]
    shipped = next((path for path in places if path.is_file()), None)
    if shipped is None:
        names = sorted(path.relative_to(CHECKOUT).with_suffix("").as_posix() for path in CHECKOUT.rglob("*.yaml"))
        raise UserError(f"The configuration {name} does not exist; give a YAML file, or one of {', '.join(names)}.")
    return shipped


def _check_yaml(path: Path) -> None:
    """Names the file and the line of a YAML mistake, which jsonargparse does not."""
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path} is not valid YAML in line {line} ({error.problem}); mend that line.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML ({one_line(str(error))}); give a YAML file.") from None
    if not isinstance(content, dict):
        held = "nothing" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{path} holds {held}, not options by their names; give a YAML file of options.")


def read_task(
    argv: Sequence[str],
    prog: str,
    description: str,
    add_options: Callable[["OptionParser"], None] | None = None,
    needs: tuple[str, str] | None = None,
) -> tuple[Any, Any, Namespace]:
    """The task (without a model yet), the data module, and all options, of a training run's YAML file.

    Every key of the file can be given as a flag too, as for `fit`.

    Args:
        argv: the arguments.
        prog: the command, for its help.
        description: what it does, for its help.
        add_options: adds the command's own.
        needs: the class paths of the task and the data module; any if None.

    Raises:
        UserError: an option or a key is wrong, or the file is another task's.
    """
    before_torch(argv, prog, description, add_options, needs)
    from lavic.commands.quiet import quieten

    quieten()
    task_class, data_class = map(_imported, needs or ("lavic.tasks.base.Task", "lavic.tasks.base.TaskData"))
    parser = OptionParser(prog=prog, description=description)
    parser.add_argument("--config", action="config", help=CONFIG_HELP)
    parser.add_subclass_arguments(task_class, "model", required=True)
    parser.add_subclass_arguments(data_class, "data", required=True)
    parser.link_arguments("model.init_args.base.name", "data.init_args.model_name")
    add_run_sections(parser)
    parser.add_argument("--logs_dir", type=Path | None, default=None, help="As for fit; not used.")
    parser.add_argument("--seed_everything", type=int, default=42, help="Seed, as for fit.")
    parser.link_arguments("seed_everything", "model.init_args.seed")
    parser.link_arguments("seed_everything", "data.init_args.seed")
    if add_options:
        add_options(parser)
    options = parser.parse(argv)
    unmade = {section: options.pop(section) for section in RUN_SECTIONS}
    made = parser.instantiated(options)
    for section, given in unmade.items():
        made[section] = given
    return made.model, made.data, made


def add_run_sections(parser: ArgumentParser) -> None:
    """What a run's file says of training, option by option as for `fit`: files are merged, and mistakes refused, alike.

    Nothing of it is made: no strategy starts processes, and no logger opens a file.
    """
    from lightning.pytorch import Trainer

    from lavic.training.checkpoint import TrainableCheckpoint
    from lavic.training.early_stop import EarlyStop
    from lavic.training.guards import SkipNonFiniteSteps

    kinds = (Trainer, TrainableCheckpoint, EarlyStop, SkipNonFiniteSteps)
    for section, kind in zip(RUN_SECTIONS, kinds, strict=True):
        parser.add_class_arguments(kind, section, instantiate=False)


CONFIG_HELP = "A YAML file of a training run; later ones are set on top."


def before_torch(
    argv: Sequence[str],
    prog: str,
    description: str,
    add_options: Callable[["OptionParser"], None] | None = None,
    needs: tuple[str, str] | None = None,
) -> None:
    """Prints the help and ends where it is asked for, and finds the mistakes that need no task's class.

    The arguments are those of `read_task`.

    Raises:
        UserError: an option is wrong or missing.
    """
    parser = OptionParser(prog=prog, description=description)
    parser.add_argument("--config", action="config", help=CONFIG_HELP)
    if add_options:
        add_options(parser)
    own = {action.dest for action in parser._actions} | {"logs_dir", "seed_everything"}
    if wants_help(argv):
        shown = "The task and its options, as `python -m lavic fit --config FILE --help` lists them."
        for section in ("model", "data", "trainer"):
            parser.add_argument(f"--{section}.*", type=str, help=shown if section == "model" else "As for fit.")
        parser.print_help()
        raise SystemExit(0)
    names = {action.dest for action in parser._actions} - {"config", "print_config"}
    parser.parse_args(_own_flags(argv, names))
    check_task_options(found_configs(argv), own, dict(zip(("model", "data"), needs, strict=True)) if needs else None)


def _own_flags(argv: Sequence[str], names: Container[str]) -> list[str]:
    """The arguments that are the command's own flags, and their values."""
    own: list[str] = []
    mine = False
    for argument in argv:
        if argument.startswith("--"):
            mine = argument[2:].partition("=")[0] in names
        if mine:
            own.append(argument)
    return own


def _imported(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)
