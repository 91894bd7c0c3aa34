"""Kills a training run again and again with SIGKILL and resumes it; the end must equal that of an unharmed run.

    python -m benchmarks.kill_and_resume --kills 20
    python -m benchmarks.kill_and_resume --kills 20 --task instruction    # LoRA, and the projector in full

Every other kill waits for a file that is being written (a checkpoint or an adapter) and strikes there; the others
strike at a random moment. Meanwhile a reader polls the adapter's directory and the checkpoint and must never see half
of one. Losses of all steps and the final adapter are compared bit for bit. CPU only; exit status 1 where they differ.
"""

import argparse
import hashlib
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from lavic.demo.toy_llava import tiny_checkpoint
from tests.conftest import write_described
from tests.instruction_files import write_instruction_files
from tests.training.command_line import FORK, ROOT, Started, options_of, start

ADAPTER = "*_adapter_best"
WRITING = ".*.partial"  # what a file or an adapter is called until it is whole
Start = Callable[[Path], Started]
Options = Callable[[Path], list[str]]  # output directory -> the command line


class Reader:
    """A process that opens the adapter and the checkpoint over and over, as another program would."""

    def __init__(self, output: Path) -> None:
        self._ended, self._results = FORK.Event(), FORK.Queue()
        self._process = FORK.Process(target=_poll, args=(output, self._ended, self._results))
        self._process.start()

    def end(self) -> tuple[int, list[str]]:
        """How many files it read, and what was wrong with those that were broken."""
        self._ended.set()
        reads, broken = self._results.get(timeout=60)
        self._process.join()
        return reads, broken


def _poll(output: Path, ended: Event, results: Any) -> None:
    torch.set_num_threads(1)
    reads, broken = 0, []
    readers: dict[str, Callable[[Path], object]] = {
        f"{ADAPTER}/*.json": lambda path: json.loads(path.read_text()),
        f"{ADAPTER}/*.safetensors": _read_all,
        "last.ckpt": lambda path: torch.load(path, weights_only=True),
    }
    while not ended.wait(0.02):
        for pattern, read in readers.items():
            for path in output.glob(pattern):
                try:
                    read(path)
                    reads += 1
                except FileNotFoundError:
                    pass  # swapped away between the look-up and the opening
                except Exception as error:
                    if "No such file or directory" not in str(error):  # likewise: safetensors opens it once more
                        broken.append(f"{path.name}: {error}")
    results.put((reads, broken))


def _read_all(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)


def kill_and_resume(begin: Start, output: Path, kills: int, seed: int, seconds: float) -> None:
    """Runs to the end through `kills` kills.

    Args:
        begin: starts or resumes the run in an output directory.
        output: that directory.
        kills: so many times the run is killed before it may end.
        seed: of the moments.
        seconds: that a run takes when it is left alone.

    Raises:
        RuntimeError: a run ended by itself with an error.
    """
    rng = random.Random(seed)
    killed = 0
    while killed < kills:
        process = begin(output)
        strike = _while_writing if killed % 2 else _at_random
        strike(process, output, rng, seconds)
        process.kill()
        process.join()
        if process.exitcode == 0:  # it came to its end first: start afresh, the same losses are due again
            (output / "last.ckpt").unlink()
            shutil.rmtree(adapter_of(output))
        elif process.exitcode is not None and process.exitcode > 0:
            raise RuntimeError(f"the run ended with status {process.exitcode}; see {output.with_suffix('.log')}")
        else:
            killed += 1
            print(f"kill {killed}, {strike.__name__.strip('_').replace('_', ' ')}: {_progress(output)}", flush=True)
    finish(begin, output)


def finish(begin: Start, output: Path) -> float:
    """Lets the run come to its end, and says how many seconds that took."""
    begun = time.monotonic()
    process = begin(output)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the run failed; see {output.with_suffix('.log')}")
    return time.monotonic() - begun


def _at_random(process: Started, output: Path, rng: random.Random, seconds: float) -> None:
    process.join(rng.uniform(0.1, 0.9) * seconds)


def _while_writing(process: Started, output: Path, rng: random.Random, seconds: float) -> None:
    """Waits for the n-th time that something is being written."""
    left, seen = rng.randint(1, 6), False
    while process.is_alive() and left:
        writing = any(output.glob(WRITING))
        left -= writing and not seen
        seen = writing


def _progress(output: Path) -> str:
    half = [path.name for path in output.glob(WRITING)]
    last = output / "last.ckpt"
    step = torch.load(last, weights_only=True)["global_step"] if last.exists() else None
    return f"last.ckpt of step {step}" + (f", half-written {' and '.join(half)}" if half else "")


def losses(output: Path) -> dict[int, list[float]]:
    """Every loss that was ever recorded for a step: repeated steps must repeat it."""
    found: dict[int, list[float]] = {}
    for path in sorted((output / "logs").glob("*/metrics.jsonl")):
        for line in path.read_text().splitlines():
            event = json.loads(line) if line.endswith("}") else {}
            if event.get("event") in ("train", "validation"):
                found.setdefault((event["event"] == "validation") * 10**6 + event["step"], []).append(
                    event["train_loss"] if "train_loss" in event else event["val_loss"]
                )
    return found


def adapter_of(output: Path) -> Path:
    """The best adapter's folder."""
    [folder] = output.glob(ADAPTER)
    return folder


def adapter_hashes(output: Path) -> dict[str, str]:
    """Of the adapter's weights, and of the parts that are trained whole, by file."""
    files = adapter_of(output).glob("*.safetensors")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def differences(whole: Path, parts: Path) -> list[str]:
    """What differs between the unharmed run and the killed one."""
    expected, found = losses(whole), losses(parts)
    wrong = [
        f"step {step % 10**6}: {found.get(step)} instead of {values[0]}"
        for step, values in expected.items()
        if set(found.get(step, [])) != {values[0]}
    ]
    if adapter_hashes(whole) != adapter_hashes(parts):
        wrong.append("the adapters differ")
    return wrong


def compare(folder: Path, kills: int, seed: int, samples: int, task: str = "distillation") -> list[str]:
    """Runs once unharmed and once killed, in `folder`; what differs, and every half-written file that was seen."""
    begin = tiny_run(folder, TASKS[task](folder, samples))
    seconds = finish(begin, folder / "whole")
    reader = Reader(folder / "parts")
    kill_and_resume(begin, folder / "parts", kills, seed, seconds)
    reads, broken = reader.end()
    print(f"{kills} kills; {reads} reads, {len(broken)} of half a file")
    return broken + differences(folder / "whole", folder / "parts")


def distillation(folder: Path, samples: int) -> Options:
    """Stage 1 on described images."""
    described = write_described(folder / "data", samples, 6)
    return lambda output: options_of(folder / "tiny", described, output)


def instruction(folder: Path, samples: int) -> Options:
    """LoRA on the language model and the whole projector, on conversations, with a schedule."""
    files = write_instruction_files(folder / "data", seen=samples - samples // 3, text=samples // 3)
    entry = "init_args.entry={tokens: patch, shape: null}"
    return lambda output: [
        "fit", f"--config={ROOT}/configs/instruct.yaml", *files.options(),
        f"--model.init_args.base.name={folder / 'tiny'}",
        f"--model.{entry}", f"--data.{entry}", "--model.init_args.max_new_tokens=4", "--trainer.accelerator=cpu",
        "--trainer.accumulate_grad_batches=1", "--trainer.log_every_n_steps=1", f"--trainer.default_root_dir={output}",
        f"--logs_dir={output / 'logs'}",
    ]  # fmt: skip


TASKS = {"distillation": distillation, "instruction": instruction}


def tiny_run(folder: Path, options: Options) -> Start:
    """Two epochs with dropout on a tiny LLaVA-v1.6, a checkpoint after every second step, a loader's worker."""
    tiny_checkpoint(folder / "tiny")
    numbers = itertools.count()

    def begin(output: Path) -> Started:
        arguments = [
            *options(output), "--resume", "--trainer.max_epochs=2",
            "--checkpoint.every_n_steps=2", "--model.init_args.trainable.lora.dropout=0.2",
            "--trainer.val_check_interval=0.5", "--data.init_args.batch_size=2", "--data.init_args.num_workers=1",
        ]  # fmt: skip
        return start(arguments, output.with_suffix(".log"), f"training_{next(numbers):06d}")

    return begin


def main() -> int:
    """Prints what it does; exit status 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills before the run may end (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--samples", type=int, default=48, help="training samples of an epoch (default: 48)")
    parser.add_argument("--task", choices=TASKS, default="distillation", help="what is trained (default: distillation)")
    parser.add_argument("--keep", type=Path, help="keep the runs in this directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        wrong = compare(folder, options.kills, options.seed, options.samples, options.task)
    print("\n".join(wrong) or "the same losses and adapter, bit for bit")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
