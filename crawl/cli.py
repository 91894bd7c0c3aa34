"""The command line, made from `Settings`: flags, or a YAML file by --config."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import get_type_hints

from jsonargparse import ArgumentParser
from rich.console import Console

from crawl.errors import UserError
from crawl.session import WRONG_INPUT, crawl
from crawl.settings import Settings


def make_parser() -> ArgumentParser:
    """One flag for each field of `Settings`."""
    parser = ArgumentParser(
        prog="python -m crawl",
        description="Fill data/train_images and data/valid_images from the metadata files in data/. Run it"
        " again at any time: it fetches only what is missing. Exit status: 0 everything obtainable is there,"
        " 2 wrong input, or no image at all could be had, 3 transient failures remain, 130 stopped by Ctrl-C.",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file of options, like `in_flight: 32`")
    hints = get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        flag, text = f"--{field.name.replace('_', '-')}", field.metadata["help"]
        if hints[field.name] is bool:
            parser.add_argument(flag, action="store_true", help=text)
        elif field.default_factory is not dataclasses.MISSING:
            parser.add_argument(flag, nargs="+", type=str, default=[], metavar="TEXT", help=text)
        else:
            parser.add_argument(flag, type=hints[field.name], default=field.default, help=text)
    return parser


def parse(arguments: Sequence[str]) -> Settings:
    """The settings that the arguments ask for. Raises UserError."""
    parser = make_parser()
    try:
        given = parser.parse_args(_gather(arguments))
    except Exception as error:  # argparse, jsonargparse and the YAML reader each have their own
        sentence = " ".join(str(error).split())
        raise UserError(f"{sentence} (python -m crawl --help lists the options)") from error
    return Settings(**{field.name: given[field.name] for field in dataclasses.fields(Settings)})


def _gather(arguments: Sequence[str]) -> list[str]:
    """The arguments with each list option's repetitions made one: to argparse the last one alone would count."""
    lists = {
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(Settings)
        if field.default_factory is not dataclasses.MISSING
    }
    found: dict[str, list[str]] = {}
    others: list[str] = []
    values = others
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in lists:
            values = found.setdefault(flag, [])
            if equals:
                values.append(value)
        elif argument.startswith("-"):
            values = others
            others.append(argument)
        else:
            values.append(argument)
    return others + [text for flag, values in found.items() for text in (flag, *values)]


def _console(stderr: bool) -> Console:
    """One that shows text as it is: paths and reasons may have [brackets] and :colons: in them."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments)
        return crawl(settings, _console(stderr=False), _console(stderr=True))
    except UserError as error:
        print(f"crawl: {error}", file=sys.stderr)
        return WRONG_INPUT
