"""A demo's training runs: started by the command that a user types, and what their validations say."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lavic.files.json_entries import Entry, read_entries
from lavic.runs.run_files import read_run

NUMBERS = {
    "val_loss": "val_loss",
    "val_perplexity": "perplexity",
    "visual_gain": "visual_gain",
    "visual_gain_blank": "gain over a blank image",
}

Run = Callable[..., None]
"""Runs `python -m MODULE ARGUMENTS...`, in an `environment` of further variables."""


def fit(run: Run, *options: object) -> Path:
    """Trains; returns the run's folder in `logs`."""
    run_id = time.strftime("training_%Y%m%d_%H%M%S")
    run("lavic", "fit", *options, environment={"LAVIC_RUN_ID": run_id})
    return Path("logs") / run_id


def validations(run_folder: Path) -> list[dict[str, Any]]:
    """A run's validations, in their order."""
    return read_run(run_folder).of("validation")


def rows(path: Path) -> list[dict[str, Any]]:
    """What the lines of a file say that a command has written."""
    return [line.value for line in read_entries(path) if isinstance(line, Entry)]


def validation_table(title: str, events: Sequence[dict[str, Any]]) -> Table:
    """The main numbers of validations, a row each."""
    table = Table("epoch", *NUMBERS.values(), title=title)
    for event in events:
        table.add_row(f"{event['epoch']:.0f}", *(f"{event[name]:.3f}" for name in NUMBERS))
    return table
