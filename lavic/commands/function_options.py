"""The options of a command that are a function's arguments, read from its source."""

from collections.abc import Mapping, Sequence
from textwrap import fill

from lavic.commands.checking import check_section, unknown
from lavic.commands.given import given_options
from lavic.commands.signatures import Options, Signature, signature_of

DEFAULTS = {"None": "null", "True": "true", "False": "false"}  # as YAML writes them


def check_function_options(argv: Sequence[str], path: str) -> None:
    """Checks the options of `argv`, whose `--config`s name files that exist, against a function's arguments.

    Raises:
        UserError: an option's name, type or range is wrong.
    """
    signature = _signature(path)
    given = given_options(argv)
    for name in given:
        if name not in signature.options:
            raise unknown(name, [*signature.options, "config"])
    check_section("", path, given)


def function_help(prog: str, path: str) -> str:
    """What a function does and every option that is an argument of it, those of its dataclasses included."""
    signature = _signature(path)
    usage = [f"usage: {prog} [--config FILE ...] [--OPTION VALUE ...]", "", fill(signature.summary, 110), ""]
    config = {"config": "A YAML file of the options below; later ones are set on top."}
    return "\n".join([*usage, *explained(config | meanings("", signature))])


def meanings(prefix: str, signature: Signature) -> dict[str, str]:
    """Each option's name and its meaning with its default; options of options by their full names."""
    found: dict[str, str] = {}
    for key, option in signature.options.items():
        own = next((kind.signature for kind in option.kinds if isinstance(kind, Options)), None)
        if own is not None:
            found |= meanings(f"{prefix}{key}.", own)
        else:
            default = (
                "required" if option.default is None else f"default: {DEFAULTS.get(option.default, option.default)}"
            )
            found[prefix + key] = f"{option.meaning} ({default})".strip()
    return found


def explained(meaning_of: Mapping[str, str]) -> list[str]:
    """Lines of help."""
    indent = " " * 6
    return [
        line
        for name, meaning in meaning_of.items()
        for line in (f"  --{name}", fill(meaning, 110, initial_indent=indent, subsequent_indent=indent))
    ]


def _signature(path: str) -> Signature:
    signature = signature_of(path)
    assert signature is not None, path
    return signature
