"""Two programs that train in turns: each waits at the end of its turn until it is told to go on.

A program reads a line from its standard input before a turn, and after it writes one JSON line to its standard output:
seconds, CPU seconds (of its loader's workers too), peak memory, and the losses of the turn's steps.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil


class Clock:
    """Counts a program's optimizer steps, and holds it after every `steps` of them."""

    def __init__(self, steps: int) -> None:
        self.steps, self.losses = steps, list[float]()

    def wait(self) -> None:
        """Until the other side says so; then the turn begins."""
        sys.stdin.readline()
        self.wall, self.cpu = time.perf_counter(), _cpu_seconds()

    def step(self, loss: float) -> None:
        """Notes a step that has ended, and the turn with it if it was the last."""
        self.losses.append(loss)
        if len(self.losses) == self.steps:
            told = {
                "seconds": time.perf_counter() - self.wall,
                "CPU seconds": _cpu_seconds() - self.cpu,
                "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "losses": self.losses,
            }
            print(json.dumps(told), flush=True)
            self.losses = []
            self.wait()


class Contender:
    """A module in a process of its own that trains in turns; what else it says goes to the file `said`."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], said: Path, python: str = sys.executable
    ) -> None:
        self.said = said
        with said.open("w") as file:
            self.process = subprocess.Popen(
                [python, "-m", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env=environment,
            )  # fmt: skip

    def turn(self) -> dict[str, Any]:
        """Lets it train for one turn, and returns what it tells. Raises RuntimeError if it ends instead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('{"seconds"'):
                told: dict[str, Any] = json.loads(line)
                return told
        raise RuntimeError(self.said.read_text())

    def end(self) -> None:
        """Ends it; what it would still write is wanted by nobody."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            child.kill()
        self.process.kill()
        self.process.communicate()


def _cpu_seconds() -> float:
    """Of this process and those that it started."""
    total = 0.0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total
