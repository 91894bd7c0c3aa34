"""Which adapter a command uses, and where its results go."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lavic.files import write_text
from lavic.files.json_entries import read_json
from lavic.training.run_folder import is_first_process

log = logging.getLogger(__name__)

OUTPUT = "out"  # where a run writes that names no default_root_dir
NOTE = "results_of.json"
UNTRAINED = "untrained"


@dataclass(frozen=True)
class UsedAdapter:
    """An adapter as it stands on the disk; none is the untrained model.

    Attributes:
        folder: its directory; None where there is none.
        sha256: of its weights and its shape; None where there are none.
    """

    folder: Path | None
    sha256: str | None = None

    @classmethod
    def of(cls, folder: Path | None) -> "UsedAdapter":
        """The adapter of a directory, whose weights are read for their hash."""
        return cls(folder, _hash(folder) if folder is not None and folder.is_dir() else None)

    def described(self) -> dict[str, str | None]:
        """What result files say of it; `adapter` is "untrained" where there is none."""
        return {"adapter": str(self.folder) if self.folder else UNTRAINED, "adapter_sha256": self.sha256}


def choose_adapter(named: Path | None, output: Path, best: str) -> UsedAdapter:
    """The adapter that is named, or else the best one of the output directory; says which in one line.

    Args:
        named: the adapter's directory by the options; None where they name none.
        output: the output directory of the run.
        best: the name of the best adapter's folder there.
    """
    if named is not None:
        used, said = UsedAdapter.of(named), f"Adapter: {named}."
    elif (output / best).is_dir():
        used, said = UsedAdapter.of(output / best), f"Adapter: {output / best}, the best of {output}."
    else:
        used = UsedAdapter(None)
        said = f"The model is {UNTRAINED}: {output / best} does not exist, and model.init_args.adapter names no other."
    if is_first_process():
        log.log(logging.INFO if used.folder else logging.WARNING, "%s", said)
    return used


def best_folder(task: Any, callbacks: Any) -> str:
    """The name of a task's best adapter's folder, which a `BestAdapter` among the trainer's options may set."""
    listed = callbacks if isinstance(callbacks, Iterable) else [callbacks]
    for callback in listed:
        if str(getattr(callback, "class_path", "")).endswith(".BestAdapter"):
            return str(callback.init_args.get("name") or task.adapter_folder)
    return str(task.adapter_folder)


def results_folder(output: Path, used: UsedAdapter) -> Path:
    """The folder of an adapter's results: the output directory, or one of its own where another's results stand there.

    An adapter of the same directory that has been trained since replaces its own results, and a line says so.
    """
    noted = _read_note(output)
    mine = used.described()
    if noted is None or noted == mine:
        return output
    if noted["adapter"] == mine["adapter"]:
        said = f"{output} has results of {mine['adapter']} as it was before it was trained again: they are replaced."
        folder = output
    else:
        folder = output / f"results_{(used.sha256 or UNTRAINED)[:12]}"
        said = f"{output} has results of another adapter ({noted['adapter']}): these go to {folder}."
    if is_first_process():
        log.warning("%s", said)
    return folder


class ResultsNote(pl.Callback):
    """Writes beside a test's or a prediction's results, before the first of them, whose they are.

    Args:
        used: the adapter.
    """

    def __init__(self, used: UsedAdapter) -> None:
        self.used = used

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes `results_of.json`."""
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            write_text(folder / NOTE, json.dumps(self.used.described(), indent=1) + "\n")

    on_predict_start = on_test_start


def _read_note(folder: Path) -> dict[str, Any] | None:
    path = folder / NOTE
    noted = read_json(path) if path.is_file() else None
    return noted if isinstance(noted, dict) and set(noted) == {"adapter", "adapter_sha256"} else None


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("adapter_config.json")]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
