"""What the user has given: the options of YAML files and of flags as one tree, each later one over those before."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lavic.files import read_text

CLASSES = ("model", "data")  # the sections that are a class and its arguments
SPECIAL = ("class_path", "init_args", "dict_kwargs")


def given_options(argv: Sequence[str], subclasses: Sequence[str] = ()) -> dict[str, Any]:
    """The tree of all options of `argv`, whose `--config`s name files that exist.

    Args:
        argv: the arguments, as `found_configs` returns them.
        subclasses: the sections that are a class and its arguments, which may be given without `init_args`.
    """
    tree: dict[str, Any] = {}
    for name, value in flags(argv):
        if name == "config":
            content = yaml.safe_load(read_text(Path(value)))
            merge(tree, {key: _full(key, inner, subclasses) for key, inner in content.items()})
        elif not name.endswith("help"):
            merge(tree, _nested(name.rstrip("+").split("."), _parsed(value), subclasses))
    return tree


def flags(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each `--name value`, `--name=value` or `--name` (which means true) of the arguments."""
    rest = list(argv)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--"):
            continue
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        yield flag[2:], value


def merge(into: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Puts one tree over another; a class that takes another's place takes none of its arguments."""
    if "class_path" in given and into.get("class_path", given["class_path"]) != given["class_path"]:
        into.clear()
    for name, value in given.items():
        old = into.get(name)
        if isinstance(old, str) and isinstance(value, Mapping) and "init_args" in value:  # `--logger NAME` came before
            old = into[name] = {"class_path": old}
        if isinstance(old, dict) and isinstance(value, Mapping):
            merge(old, value)
        else:
            into[name] = _copied(value)


def _copied(value: Any) -> Any:
    return {name: _copied(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def _nested(names: Sequence[str], value: Any, subclasses: Sequence[str]) -> dict[str, Any]:
    for name in reversed(names[1:]):
        value = {name: value}
    return {names[0]: _full(names[0], value, subclasses)}


def _full(section: str, value: Any, subclasses: Sequence[str]) -> Any:
    """A class's section as `class_path` and `init_args`, whichever short form it has."""
    if section not in subclasses:
        return value
    if isinstance(value, str):
        return {"class_path": value}
    if isinstance(value, dict) and not any(name in value for name in SPECIAL):
        return {"init_args": value} if value else value
    return value


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
