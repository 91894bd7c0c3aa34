"""Mistakes in options, found from the classes' sources before any of them is imported.

Nothing is refused here that the parser would take; what the sources do not tell is left to it.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from lavic.commands.signatures import (
    Anything,
    Kind,
    Listed,
    Mapped,
    NoSuchClass,
    OneOf,
    Option,
    Options,
    Plain,
    Signature,
    signature_of,
)
from lavic.errors import UserError
from lavic.ranges import check_ranges

LONGEST = 80  # letters of a value or of a list of names in a sentence
TRUTHS = ("true", "false", "yes", "no", "on", "off")
WORDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "Path": "a path",
    "None": "null",
}  # fmt: skip


def check_section(name: str, class_path: str, given: Any) -> None:
    """Checks a section of options against the constructor that takes them.

    Raises:
        UserError: an option's name, type or range is wrong.
    """
    signature = signature_of(class_path)
    if signature is not None:
        _check_options(name, signature, given, complete=False)


def check_class(name: str, given: Any, expected: str | None = None) -> None:
    """Checks a class path and its arguments.

    Args:
        name: the section or option that holds it.
        given: its value.
        expected: the class path that a command needs; any if None.

    Raises:
        UserError: there is no such class, or an argument is wrong or missing.
    """
    if not isinstance(given, Mapping):
        return
    class_path = given.get("class_path")
    if class_path is None:
        if "init_args" in given:
            raise UserError(f"{name} has init_args and no class_path; give --{name}.class_path, or --config FILE.")
        return
    if not isinstance(class_path, str) or "." not in class_path:  # the parser knows some by short names
        return
    try:
        signature = signature_of(class_path)
    except NoSuchClass:
        said = f"{name}.class_path is {shown(class_path)}, which does not exist; give the path of a class."
        raise UserError(said) from None
    if signature is None:
        return
    wanted = (expected or "").rpartition(".")[2]
    if wanted and signature.name != wanted and class_path.startswith("lavic."):
        raise UserError(f"{name} is {signature.name}, and this command needs {wanted}; give another --config.")
    _check_options(f"{name}.init_args", signature, given.get("init_args") or {}, complete=expected is not None)


def unknown(name: str, known: Iterable[str]) -> UserError:
    """What is said of an option that does not exist."""
    names = sorted(known)
    within, _, last = name.rpartition(".")
    near = difflib.get_close_matches(last, names, 1)
    if near:
        way_out = f"did you mean {within + '.' if within else ''}{near[0]}?"
    elif len(listed := ", ".join(names)) <= 2 * LONGEST:
        way_out = f"give one of {listed}."
    else:
        way_out = "--help lists those that do."
    return UserError(f"The option {shown(name)} does not exist; {way_out}")


def shown(value: Any) -> str:
    """A value as a sentence shows it, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _check_options(name: str, signature: Signature, given: Any, complete: bool) -> None:
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise UserError(f"{name} is {shown(given)}; it must be options by their names ({shown_names(signature)}).")
    for key, value in given.items():
        option = signature.options.get(str(key))
        if option is not None:
            _check_option(_joined(name, key), option, value)
        elif not signature.is_open:
            raise unknown(_joined(name, key), signature.options)
    check_ranges(_joined(name, ""), **{str(key): number(value) for key, value in given.items()})
    for key, option in signature.options.items():
        simple = all(isinstance(kind, Plain) and kind.name in ("str", "Path", "int") for kind in option.kinds)
        if complete and option.default is None and simple and given.get(key) is None:
            raise UserError(f"{name}.{key} is missing; give it in the YAML file or as --{name}.{key}.")


def _check_option(name: str, option: Option, value: Any) -> None:
    own = next((kind for kind in option.kinds if isinstance(kind, Options)), None)
    if own is not None and isinstance(loaded := _loaded(value), Mapping):
        if "class_path" not in loaded:
            _check_options(name, own.signature, loaded, complete=False)
    elif isinstance(value, Mapping) and {"class_path", "init_args"} & value.keys():
        check_class(name, value)
    elif not any(_fits(kind, value) for kind in option.kinds) and not _empty(value):
        choices = [str(known) for kind in option.kinds if isinstance(kind, OneOf) for known in kind.values]
        words = [f"one of {', '.join(dict.fromkeys(choices))}"] if choices else []
        words += [_in_words(kind) for kind in option.kinds if kind != Plain("None") and not isinstance(kind, OneOf)]
        allowed = " or ".join(dict.fromkeys(words))
        raise UserError(f"{name} is {shown(value)}; it must be {allowed}.")


def whole_number(name: str, value: Any) -> int:
    """A value that must be a whole number, as one.

    Raises:
        UserError: it is none.
    """
    if not _fits(Plain("int"), value):
        raise UserError(f"{name} is {shown(value)}; it must be {WORDS['int']}.")
    return int(number(value))


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def number(value: Any) -> Any:
    """A text such as 1e-4, which YAML takes for none, as the number that it is; anything else as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _fits(kind: Kind, value: Any) -> bool:
    match kind:
        case Plain("int"):
            return _fits(Plain("float"), value) and float(number(value)).is_integer()
        case Plain("float"):
            return not isinstance(value, bool) and isinstance(number(value), int | float)
        case Plain("bool"):
            return isinstance(value, bool) or str(value).lower() in TRUTHS
        case Plain("str" | "Path"):
            return not isinstance(value, Mapping | list)
        case Mapped(of):
            return isinstance(inner := _loaded(value), Mapping) and all(_fits(of, one) for one in inner.values())
        case Plain(_):
            return False
        case OneOf(values):
            return str(value).lower() in [str(known).lower() for known in values]
        case Listed(of):
            return isinstance(items := _loaded(value), list) and all(_fits(of, item) for item in items)
        case Options():
            return isinstance(value, str) and value.endswith((".yaml", ".yml"))
    return isinstance(kind, Anything)


def _empty(value: Any) -> bool:
    return value is None or str(value).lower() in ("null", "none", "~", "")


def _loaded(value: Any) -> Any:
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value


def _in_words(kind: Kind) -> str:
    match kind:
        case Plain(name):
            return WORDS[name]
        case Listed():
            return "a list, such as [FIRST, SECOND]"
        case Mapped(of):
            return f"options by their names, each {_in_words(of)}"
        case Options(signature):
            return f"options by their names ({shown_names(signature)})"
    return "a class path"


def shown_names(signature: Signature) -> str:
    """The names of its options, cut where they are many."""
    return shown(", ".join(signature.options))
