"""The files that training runs leave in `logs/`, read without PyTorch: what they say, whether a run lives."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lavic.errors import UserError
from lavic.files.json_entries import Entry, read_entries, read_json

SILENT_SECONDS = 600  # after which a run on another host counts as stale
CLOCK_SET_SECONDS = 60  # by which a process's start may seem to move, since it is told from the clock


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        directory: `logs/<run id>`.
        about: `run.json`.
        events: the lines of `metrics.jsonl`; a resumed run's begin with those of the runs that it continues.
    """

    directory: Path
    about: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def run_id(self) -> str:
        return self.directory.name

    def of(self, event: str) -> list[dict[str, Any]]:
        """All events of one kind, in order."""
        return [e for e in self.events if e["event"] == event]

    def last(self, event: str) -> dict[str, Any]:
        """The newest event of one kind, or an empty dict."""
        return next((e for e in reversed(self.events) if e["event"] == event), {})

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return max((e["step"] for e in self.events if e["event"] in ("train", "validation", "first_step")), default=0)

    def status(self) -> str:
        """`running`, `finished`, `interrupted`, `failed`, `crashed` or `stale`.

        A run that wrote no end is running if its process lives; on another host, where that cannot be seen,
        it is stale once its files are ten minutes old.
        """
        own = [e for e in self.events if e.get("run_id", self.run_id) == self.run_id]
        if own and own[-1]["event"] == "end":
            return str(own[-1]["status"])
        if self.about.get("host") != socket.gethostname():
            silent = time.time() - max(path.stat().st_mtime for path in self.directory.iterdir())
            return "stale" if silent > SILENT_SECONDS else "running"
        return "running" if _is_alive(self.about.get("pid"), self.about.get("pid_start")) else "crashed"

    def steps_per_second(self) -> float | None:
        """Over the last twenty intervals between train events, validations included."""
        train = [e for e in self.of("train") if e.get("run_id", self.run_id) == self.run_id][-21:]
        if len(train) < 2 or train[-1]["time"] <= train[0]["time"]:
            return None
        return float((train[-1]["step"] - train[0]["step"]) / (train[-1]["time"] - train[0]["time"]))

    def seconds_left(self) -> float | None:
        """Until `total_steps`, at the present speed, or the first step's; None where either is unknown."""
        speed, total = self.steps_per_second(), self.about.get("total_steps")
        if speed is None and (seconds := self.last("first_step").get("seconds")):
            speed = 1 / float(seconds)
        return None if not speed or not total else max(0, total - self.step) / speed


def find_run(logs: Path, run_id: str | None = None) -> Run:
    """The named run, or the newest.

    Raises:
        UserError: there is none.
    """
    if run_id is not None:
        directory = logs / run_id
        if not (directory / "run.json").is_file():
            known = ", ".join(run_ids(logs)[-3:]) or "none"
            raise UserError(f"{logs} has no run {run_id!r}; the newest are: {known}.")
        return read_run(directory)
    ids = run_ids(logs)
    if not ids:
        raise UserError(f"There is no run in {logs} yet; start one with ./run_training.sh, or name another --logs.")
    return read_run(logs / ids[-1])


def run_ids(logs: Path) -> list[str]:
    """All runs, by the time of their start."""
    found = [path.parent for path in logs.glob("*/run.json")]
    return [directory.name for directory in sorted(found, key=lambda directory: (_started(directory), directory.name))]


def read_run(directory: Path) -> Run:
    """One run, with the events of those that it continues up to the steps where it took over."""
    about = _read_about(directory)
    own = list(_read_events(directory / "metrics.jsonl"))
    earlier: list[dict[str, Any]] = []
    continued = about.get("continues")
    if continued and continued["run_id"] != directory.name and (directory.parent / continued["run_id"]).is_dir():
        before = read_run(directory.parent / continued["run_id"])
        kept = ("train", "validation", "skip")
        earlier = [
            {"run_id": before.run_id, **e}
            for e in before.events
            if e["event"] in kept and e["step"] <= continued["step"]
        ]
    return Run(directory, about, earlier + own)


def _read_about(directory: Path) -> dict[str, Any]:
    path = directory / "run.json"
    about = read_json(path)
    if not isinstance(about, dict) or not isinstance(about.get("started"), int | float):
        raise UserError(f"{path} is not what a run writes; remove {directory}, or name another run.")
    return about


def _started(directory: Path) -> float:
    """When a run began; a run whose file is broken comes before all others."""
    try:
        return float(_read_about(directory)["started"])
    except UserError:
        return 0.0


def _read_events(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in read_entries(path):
        if isinstance(line, Entry):  # or else it is being written, or a crash cut it off
            yield line.value


def process_start(pid: int) -> float | None:
    """When a process of this host began, in seconds since 1970; None if it has ended."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _is_alive(pid: int | None, start: float | None) -> bool:
    """Whether that process lives, and not a later one that was given its number."""
    began = None if pid is None else process_start(pid)
    return began is not None and (start is None or abs(began - start) < CLOCK_SET_SECONDS)
