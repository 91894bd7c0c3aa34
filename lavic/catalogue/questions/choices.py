"""Choices of a published question, and which of them is right, however the file says so."""

from typing import Any

from lavic.catalogue.questions.cells import Fields, Unfit, number_text
from lavic.catalogue.questions.question import Truth

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def choices_of(fields: Fields) -> tuple[str, ...]:
    """The choices as texts. Raises Unfit."""
    written = fields.get("choices")
    if not isinstance(written, list | tuple) or not written:
        raise Unfit("choices is no list" if written else "no choices")
    choices = []
    for one in written:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise Unfit("a choice is neither a text nor a number")
        choices.append(one if isinstance(one, str) else number_text(one))
    if len(choices) > len(LETTERS):
        raise Unfit(f"over {len(LETTERS)} choices")
    return tuple(choices)


def chosen_truth(choices: tuple[str, ...], written: Any) -> Truth:
    """What is right by the number of a choice (from 0), its text, or its letter; nothing where nothing is written.

    Raises:
        Unfit: none of the choices is meant.
    """
    if written is None:
        return Truth(choices=choices)
    if isinstance(written, int | float) and not isinstance(written, bool):
        if number_text(written) in choices:
            correct = choices.index(number_text(written))
        elif float(written).is_integer() and 0 <= written < len(choices):
            correct = int(written)
        else:
            raise Unfit(f"answer {written} is none of {len(choices)} choices")
    elif isinstance(written, str) and written in choices:
        correct = choices.index(written)
    elif isinstance(written, str) and written.strip() in LETTERS[: len(choices)] and len(written.strip()) == 1:
        correct = LETTERS.index(written.strip())
    else:
        raise Unfit("answer is none of the choices")
    return Truth((choices[correct],), choices, correct)


def numbered_truth(choices: tuple[str, ...], number: Any) -> Truth:
    """What is right by its number from 0; a number below 0 and null say nothing, as in test files. Raises Unfit."""
    if number is None or (isinstance(number, int) and number < 0):
        return Truth(choices=choices)
    if isinstance(number, bool) or not isinstance(number, int) or number >= len(choices):
        raise Unfit(f"answer {number} is none of {len(choices)} choices")
    return Truth((choices[number],), choices, number)
