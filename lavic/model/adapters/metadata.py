"""`lavic.json` in an adapter's directory: what the adapter is, so that no other is taken for it.

Adapters without the file, of an earlier LaViC or of other programs, are judged by the modules that their weights touch.
"""

import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lavic.errors import UserError
from lavic.files import write_text
from lavic.files.json_entries import read_json
from lavic.model.checkpoint_files import checkpoint_hash
from lavic.model.parts import HELD, Mode, TrainableParts, part_of

log = logging.getLogger(__name__)

ABOUT = "lavic.json"
TOUCHES = {"distillation": {"vision", "projector"}, "recommendation": {"language"}}
"""For tasks that wrote adapters before the file existed: the parts of which theirs touch at least one."""


@dataclass(frozen=True)
class AdapterMetadata:
    """What an adapter was trained for.

    Args:
        task: the task's name; null where it is not known.
        parts: the mode of each part.
        base: the checkpoint that it was trained on.
        base_hash: `checkpoint_hash` of it; null in adapters of before it was noted.
    """

    task: str | None
    parts: dict[str, Mode]
    base: str
    base_hash: str | None = None


def write_metadata(folder: Path, about: AdapterMetadata) -> None:
    """Writes `lavic.json`."""
    write_text(folder / ABOUT, json.dumps(asdict(about), indent=2) + "\n")


def read_metadata(folder: Path) -> AdapterMetadata | None:
    """What `lavic.json` says; None where there is none.

    Raises:
        UserError: the file is not what `write_metadata` wrote.
    """
    path = folder / ABOUT
    if not path.is_file():
        return None
    try:
        stored: dict[str, Any] = read_json(path)
        parts = {part: stored["parts"][part] for part in HELD}
        return AdapterMetadata(stored["task"], parts, str(stored["base"]), stored.get("base_hash"))
    except (UserError, ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); save the adapter again, or remove the file."
        ) from None


def require_base(folder: Path, about: AdapterMetadata, base: str) -> None:
    """Refuses an adapter that was trained on other weights than those it is to be put on, whatever their names.

    Args:
        folder: the adapter's directory.
        about: what it says of itself.
        base: directory or hub name of the checkpoint that it is to be put on.

    Raises:
        UserError: the two checkpoints' weights differ.
    """
    if not about.base_hash:
        if about.base != base:
            log.info(
                "The adapter in %s was trained on '%s'; whether '%s' has the same weights cannot be told.",
                folder, about.base, base,
            )  # fmt: skip
        return
    found = checkpoint_hash(base)
    if found and found != about.base_hash:
        same = "whose weights have changed since" if about.base == base else f"and '{base}' has other weights"
        raise UserError(
            f"The adapter in {folder} was trained on '{about.base}', {same}; give the base that it was trained on, or"
            " set base.any_base to true (--any_base of export and web) to put it on this one all the same."
        )


def modes_of(lora: Collection[str], full: Collection[str]) -> dict[str, Mode]:
    """The mode of each part, from the names of the modules with LoRA and of the parameters trained in full."""
    adapted, whole = {part_of(name) for name in lora}, {part_of(name) for name in full}
    return {part: "lora" if part in adapted else "full" if part in whole else "frozen" for part in HELD}


def require(folder: Path, about: AdapterMetadata, task: str | None, parts: TrainableParts | None) -> None:
    """Refuses an adapter of another task, or of other parts, than asked for; null asks for none in particular.

    Raises:
        UserError: naming both.
    """
    trained = ", ".join(f"{part}: {mode}" for part, mode in about.parts.items() if mode != "frozen")
    if task is not None and about.task is not None and about.task != task:
        raise UserError(
            f"The adapter in {folder} was trained by the task {about.task} ({trained}), and an adapter of the task"
            f" {task} is asked for here; give one of that."
        )
    touched = {part for part, mode in about.parts.items() if mode != "frozen"}
    expected = TOUCHES.get(task or "", touched)
    if about.task is None and not (touched & expected and (task != "recommendation" or touched <= expected)):
        raise UserError(
            f"The adapter in {folder} holds weights of the {' and '.join(sorted(touched))} part, and one of the task"
            f" {task} ({', '.join(sorted(expected))}) is asked for here; give one of that."
        )
    if parts is not None and about.parts != parts.modes():
        asked = ", ".join(f"{part}: {mode}" for part, mode in parts.modes().items() if mode != "frozen")
        raise UserError(
            f"The adapter in {folder} was trained with {trained}, and this run asks for {asked}; set the parts to"
            " what the adapter has, or start without it."
        )
