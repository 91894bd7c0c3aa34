"""A parser's message about a mistake as one sentence: the thing, its value, and the way out."""

import re
from collections.abc import Callable

LONGEST = 90  # letters of a value in a sentence, and of a library's own words
LIST = "a list, such as [FIRST, SECOND]"
TYPES = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "list": LIST,
    "dict": "options by their names", "Path": "a path", "Sequence": LIST,
}  # fmt: skip
KEY = re.compile(r'Parser key "([^"]+)"')
VALUE = re.compile(r"(?:Got value|Given value): (.+?)(?:;|\.?$)")
TYPE = re.compile(r"Expected an? <class '(?:[\w.]+\.)?(\w+)'>")
CHOICES = re.compile(r"Expected an? typing\.Literal\[([^\]]+)\]")
PATTERNS: tuple[tuple[re.Pattern[str], Callable[[str, re.Match[str]], str]], ...] = (
    (
        re.compile(r"Import path ([\w.]+) does not correspond to a subclass of (\w+)"),
        lambda key, at: f"{key} is {at[1]}, which is no {at[2]}; give the path of one",
    ),
    (
        re.compile(r"Problem with given class_path '([^']+)':?;? ?(?:Parser key \"[^\"]+\":;? ?)?([^;]*)"),
        lambda key, at: f"{key} is {at[1]}, which cannot be made ({cut(clean(at[2]))}); give another, or its arguments",
    ),
    (
        re.compile(r"Expected a dot import path string: (\S+?)(?:;|\.?$)"),
        lambda key, at: f"{key} is {at[1]}; it must be the path of a class, such as package.module.Class",
    ),
)
NESTED = re.compile(r"NestedArg\(key='([^']+)'")  # an option of a class, where none is given
MISSING = r"the following arguments are required|Key required but not included in config object"
REQUIRED = re.compile(rf"(?:{MISSING}): (.+)", re.I)
REFUSED = r"(?:Key|Option|Group key) ['\"](.+?)['\"] is not (?:accepted|expected)"
UNKNOWN = re.compile(rf"unrecognized arguments?: (.+)|{REFUSED}")


def one_line(message: str) -> str:
    """A message on one line, its bullets joined."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    return re.sub(r"\s+", " ", "; ".join(lines))


def in_plain_words(message: str) -> str:
    """The sentence, without its full stop; what is not recognised is cut, and cleared of the parser's inner names."""
    said = one_line(message).rstrip(".")
    if missing := REQUIRED.search(said):
        return f"{missing[1]} must be given"
    if unknown := UNKNOWN.search(said):
        return f"{cut(unknown[1] or unknown[2])} is no option of this command"
    keys = KEY.findall(said)
    if not keys:
        return cut(clean(said), 2 * LONGEST)
    key = keys[0]
    for pattern, sentence in PATTERNS:
        if at := pattern.search(said):
            return sentence(key, at)
    if inner := NESTED.search(said):
        return f"{key}.{inner[1]} belongs to a class that is not named; give {key}.class_path, or leave it away"
    value = VALUE.search(said)
    shown = f"{key} is {cut(value[1])}" if value else key
    choices = [part.strip(" '") for several in CHOICES.findall(said) for part in several.split(",")]
    allowed = [f"one of {', '.join(choices)}"] if choices else []
    allowed += [TYPES.get(name, f"a {name}") for name in TYPE.findall(said) if name != "NoneType"]
    if allowed and value:
        return f"{shown}; it must be {' or '.join(dict.fromkeys(allowed))}"
    return f"{shown}: {cut(clean(KEY.sub('', said).strip(' :;')), 2 * LONGEST)}"


def clean(text: str) -> str:
    """Without Python's way of writing a type, and a type's packages."""
    text = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", text)
    return re.sub(r"Expected an? ", "it must be ", text)


def cut(text: str, longest: int = LONGEST) -> str:
    """Its start, where it is long."""
    return text if len(text) <= longest else f"{text[:longest].rstrip()}..."
