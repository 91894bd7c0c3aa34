"""`python -m lavic fit` on the tiny model as processes of their own, forked from this one.

Loading the libraries takes longer than a tiny run; a forked process has them already. Everything else is as from the
shell: arguments, environment, output, exit status, kills.
"""

import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import load_file
from torch import Tensor

import lavic.__main__
import lavic.commands.fit
from lavic.runs.run_files import find_run
from tests.conftest import Described

ROOT = Path(__file__).parents[2]
ADAPTER = "vision_lora_adapter_best"
FORK = multiprocessing.get_context("fork")
LONGEST = 3600 if os.environ.get("LAVIC_REAL_EVERY") == "1" else 300  # seconds of a run; all real data take longer
Started = multiprocessing.context.ForkProcess


def options_of(tiny: Path, described: Described, output: Path) -> list[str]:
    """One epoch on the CPU without dropout, every step logged; logs go to `output/logs`."""
    return [
        "fit", "--config", str(ROOT / "configs/distill.yaml"), *described.flags(),
        f"--model.init_args.base.name={tiny}", "--model.init_args.lr=0.002", "--model.init_args.max_new_tokens=4",
        "--model.init_args.trainable.lora.dropout=0", "--data.init_args.num_workers=0", "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1", f"--trainer.default_root_dir={output}", f"--logs_dir={output / 'logs'}",
        f"--data.init_args.cache_dir={output.parent / 'cache'}",
    ]  # fmt: skip


def fork(main: Callable[[], int | None], environment: Mapping[str, str], out: Path, err: Path) -> Started:
    """A process of its own that has the libraries already, on one thread; what it prints is appended to the files."""

    def run() -> None:
        for number, path in ((1, out), (2, err)):
            with path.open("ab") as file:
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        logging.getLogger().handlers.clear()  # pytest's, which would keep the log from the console
        os.environ.update(environment)
        torch.set_num_threads(1)
        sys.exit(main())

    process = FORK.Process(target=run)
    process.start()
    return process


def status_of(process: Started, seconds: float) -> int | None:
    """Its exit status; it is killed if it has not ended by then."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def start(
    arguments: list[str], console: Path, run_id: str, rank: int = 0, processes: int = 1, port: int = 0
) -> Started:
    """Starts one process of a run; several are started as torchrun would, by their environment."""
    console.parent.mkdir(parents=True, exist_ok=True)
    variables = {"LAVIC_RUN_ID": run_id}
    if processes > 1:
        variables |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "NODE_RANK": "0",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip

    def main() -> int:
        # Lightning reads it from the environment as it is imported, and declares it nowhere
        rank_zero_only.rank = rank  # type: ignore[attr-defined]
        sys.argv = ["lavic", *arguments]
        return lavic.__main__.main()

    return fork(main, variables, console, console)


def fit(
    tiny: Path,
    described: Described,
    output: Path,
    *options: str,
    processes: int = 1,
    status: int = 0,
    strategy: str | None = "ddp",
) -> str:
    """Runs stage 1 to its end and returns what it printed; `strategy` None leaves it to the options."""
    return run([*options_of(tiny, described, output), *options], output, processes, status, strategy)


def run(arguments: list[str], output: Path, processes: int = 1, status: int = 0, strategy: str | None = "ddp") -> str:
    """Runs any command to its end and returns what it printed; `output/logs` holds the logs of its runs."""
    number = len(list((output / "logs").glob("*/run.json")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if processes > 1:
        arguments = [*arguments, f"--trainer.devices={processes}"]
        arguments += [f"--trainer.strategy={strategy}"] if strategy else []
    consoles = [output.with_name(f"{output.name}_{number}_{rank}.log") for rank in range(processes)]
    for console in consoles:
        console.unlink(missing_ok=True)  # of an attempt that was refused before it had a run's folder
    run_id = f"training_{number:06d}"
    started = [start(arguments, console, run_id, rank, processes, port) for rank, console in enumerate(consoles)]
    statuses = [status_of(process, LONGEST) for process in started]
    said = "".join(console.read_text() for console in consoles)
    assert statuses == [status] * processes, said
    return said


def kill_workers(process: Started) -> None:
    """Kills the children of a run: its loader's workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    for child in children.split():
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


def adapter(output: Path) -> dict[str, Tensor]:
    """The best adapter's weights."""
    return load_file(output / ADAPTER / "adapter_model.safetensors")


def validation(output: Path) -> dict[str, Any]:
    """The newest validation's metrics."""
    return find_run(output / "logs").last("validation")


def losses(output: Path) -> dict[int, float]:
    """train_loss of every step, those of resumed runs in place of what they repeat."""
    found: dict[int, float] = {}
    for path in sorted((output / "logs").glob("*/metrics.jsonl"), key=lambda path: path.parent.name):
        events = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        found |= {e["step"]: e["train_loss"] for e in events if e["event"] == "train"}
    return found
