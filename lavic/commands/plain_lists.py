"""Lists in flags as a person types them: `--metadata a.json b.json`, `--metadata a.json,b.json`, or YAML's brackets."""

import json
from collections.abc import Container, Iterable, Sequence

from lavic.commands.given import CLASSES, given_options
from lavic.commands.signatures import Listed, NoSuchClass, Options, Plain, Signature, signature_of

TEXTS = (Plain("str"), Plain("Path"))


def with_lists(argv: Sequence[str], lists: Container[str], several: bool = True) -> list[str]:
    """The arguments, each list among them as one value in brackets.

    Args:
        argv: the arguments.
        lists: the names of the flags that take a list.
        several: whether the values behind such a flag are all its; with arguments without a flag, only the first is.
    """
    rest, written = list(argv), []
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--") or flag[2:] not in lists:
            written.append(argument)
            continue
        values = [value] if equals else []
        while not equals and rest and not rest[0].startswith("--") and (several or not values):
            values.append(rest.pop(0))
        if not values or (len(values) == 1 and (values[0].startswith("[") or values[0] in ("null", ""))):
            written += [flag, *values] if not equals else [argument]
        else:
            written.append(f"{flag}={json.dumps([part for value in values for part in value.split(',') if part])}")
    return written


def lists_of_classes(argv: Sequence[str]) -> set[str]:
    """The flags that take a list among the options of the task and the data that `argv` names."""
    given = given_options(argv, CLASSES)
    found: set[str] = set()
    for name in CLASSES:
        class_path = (given.get(name) or {}).get("class_path")
        try:
            signature = signature_of(class_path) if isinstance(class_path, str) else None
        except NoSuchClass:
            continue
        if signature is not None:
            found |= {f"{name}.{inner}{key}" for inner in ("", "init_args.") for key in _lists(signature)}
    return found


def _lists(signature: Signature) -> Iterable[str]:
    for key, option in signature.options.items():
        if any(isinstance(kind, Listed) for kind in option.kinds) and not any(kind in TEXTS for kind in option.kinds):
            yield key
        for kind in option.kinds:
            if isinstance(kind, Options):
                yield from (f"{key}.{inner}" for inner in _lists(kind.signature))
