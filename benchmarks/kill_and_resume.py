"""Kills a training run again and again with SIGKILL and resumes it; the end must equal that of an unharmed run.

    python benchmarks/kill_and_resume.py --kills 20

Every other kill waits for a file that is being written (a checkpoint or an adapter) and strikes there; the others
strike at a random moment. Meanwhile a reader polls the adapter's directory and the checkpoint and must never see half
of one. Losses of all steps and the final adapter are compared bit for bit. CPU only; exit status 1 where they differ.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
ADAPTER = "vision_lora_adapter_best"
WRITING = (f".{ADAPTER}.partial", "last.ckpt.partial")
Start = Callable[[Path], "subprocess.Popen[bytes]"]


@dataclass
class Reader(threading.Thread):
    """Opens the adapter and the checkpoint over and over, as another program would."""

    output: Path
    reads: int = 0
    broken: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.look(self.output / ADAPTER / "adapter_config.json", lambda path: json.loads(path.read_text()))
            self.look(self.output / ADAPTER / "adapter_model.safetensors", _read_all)
            self.look(self.output / "last.ckpt", lambda path: torch.load(path, weights_only=True))

    def look(self, path: Path, read: Callable[[Path], object]) -> None:
        try:
            read(path)
            self.reads += 1
        except FileNotFoundError:
            pass  # not yet, or swapped away between the look-up and the opening
        except Exception as error:
            self.broken.append(f"{path.name}: {error}")


def _read_all(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)


def kill_and_resume(start: Start, output: Path, kills: int, seed: int) -> Reader:
    """Runs to the end through `kills` kills; `start(output)` starts or resumes the run.

    Raises:
        RuntimeError: a run ended by itself with an error, or `kills` runs came to their end before they were killed.
    """
    rng = random.Random(seed)
    reader = Reader(output)
    reader.start()
    seconds = _seconds(start, output.with_name(output.name + "_timed"))
    killed = early = 0
    while killed < kills:
        process = start(output)
        strike = _while_writing if killed % 2 else _at_random
        strike(process, output, rng, seconds)
        process.kill()
        status = process.wait()
        if status == 0:  # it ended first
            early += 1
            if early > 5 * kills:
                raise RuntimeError(f"only {killed} of {kills} kills struck a run; give it more steps")
            for path in (output / "last.ckpt", output / ADAPTER):
                subprocess.run(["rm", "-rf", path], check=True)  # start afresh: the same losses are due again
        elif status > 0:
            raise RuntimeError(f"the run ended with status {status}; see {output / 'logs'}")
        else:
            killed += 1
            print(f"kill {killed}: {strike.__name__.strip('_').replace('_', ' ')}, {_progress(output)}", flush=True)
    if start(output).wait() != 0:
        raise RuntimeError(f"the last resumption failed; see {output / 'logs'}")
    reader.ended.set()
    reader.join()
    return reader


def _seconds(start: Start, output: Path) -> float:
    begun = time.monotonic()
    if start(output).wait() != 0:
        raise RuntimeError("the run fails without being killed")
    return time.monotonic() - begun


def _at_random(process: "subprocess.Popen[bytes]", output: Path, rng: random.Random, seconds: float) -> None:
    deadline = time.monotonic() + rng.uniform(0.3, 1.0) * seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)


def _while_writing(process: "subprocess.Popen[bytes]", output: Path, rng: random.Random, seconds: float) -> None:
    """Waits for the n-th time that something is being written."""
    left = rng.randint(1, 6)
    seen = False
    while process.poll() is None and left:
        writing = any((output / name).exists() for name in WRITING)
        left -= writing and not seen
        seen = writing


def _progress(output: Path) -> str:
    if not (output / "last.ckpt").exists():
        return "before the first checkpoint"
    return f"checkpoint of step {torch.load(output / 'last.ckpt', weights_only=True)['global_step']}"


def losses(output: Path) -> dict[int, list[float]]:
    """Every loss that was ever recorded for a step: repeated steps must repeat it."""
    found: dict[int, list[float]] = {}
    for path in sorted((output / "logs").glob("*/metrics.jsonl")):
        for line in path.read_text().splitlines():
            event = json.loads(line) if line.endswith("}") else {}
            if event.get("event") in ("train", "validation"):
                found.setdefault((event["event"] == "validation") * 10**6 + event["step"], []).append(
                    event.get("train_loss", event.get("val_loss"))
                )
    return found


def adapter_hash(output: Path) -> str:
    """Of the adapter's weights."""
    return hashlib.sha256((output / ADAPTER / "adapter_model.safetensors").read_bytes()).hexdigest()


def differences(whole: Path, parts: Path) -> list[str]:
    """What differs between the unharmed run and the killed one."""
    expected, found = losses(whole), losses(parts)
    wrong = [
        f"step {step % 10**6}: {found.get(step)} instead of {values[0]}"
        for step, values in expected.items()
        if set(found.get(step, [])) != {values[0]}
    ]
    if adapter_hash(whole) != adapter_hash(parts):
        wrong.append("the adapters differ")
    return wrong


def main() -> int:
    """The demo's training run, killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills before the run may end (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--samples", type=int, default=48, help="training samples of an epoch (default: 48)")
    parser.add_argument("--keep", type=Path, help="keep the runs in this directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        start = tiny_run(folder, options.samples)
        if start(folder / "whole").wait() != 0:
            raise RuntimeError("the run fails without being killed")
        reader = kill_and_resume(start, folder / "parts", options.kills, options.seed)
        wrong = differences(folder / "whole", folder / "parts")
    print(f"{options.kills} kills; {reader.reads} reads, {len(reader.broken)} of half a file")
    for line in [*reader.broken, *wrong]:
        print(line)
    print("different" if wrong or reader.broken else "the same losses and adapter, bit for bit")
    return int(bool(wrong or reader.broken))


def tiny_run(folder: Path, samples: int) -> Start:
    """Two epochs with dropout on a tiny LLaVA-v1.6, a checkpoint after every second step."""
    sys.path.insert(0, str(ROOT))
    from lavic.demo.toy_llava import tiny_checkpoint
    from tests.conftest import write_described
    from tests.training.command_line import environment, fit_command

    tiny_checkpoint(folder / "tiny")
    described = write_described(folder / "data", samples, 6)

    def start(output: Path) -> "subprocess.Popen[bytes]":
        output.mkdir(parents=True, exist_ok=True)
        command = fit_command(
            folder / "tiny", described, output, "--resume", "--trainer.max_epochs=2", "--checkpoint.every_n_steps=2",
            "--model.init_args.trainable.lora.dropout=0.2", "--trainer.val_check_interval=0.5",
            "--data.init_args.batch_size=2", "--data.init_args.num_workers=1",
        )  # fmt: skip
        with (output / "console.log").open("ab") as console:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment(output) | {"LAVIC_RUN_ID": f"training_{time.time_ns()}"},
                stdout=console, stderr=console, preexec_fn=os.setpgrp,
            )  # fmt: skip

    return start


if __name__ == "__main__":
    sys.exit(main())
