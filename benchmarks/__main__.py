"""`python -m benchmarks NAME [options]`: runs one benchmark, prints its table, and keeps it in benchmarks/results/."""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import data, real_size, training
from benchmarks.machine import processor_name

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "peft", "lightning")


def machine() -> dict[str, Any]:
    """Where and with what a result was measured."""
    found = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cores": len(os.sched_getaffinity(0)),
        "torch threads": torch.get_num_threads(),
        "processor": processor_name(),
        "load average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def keep(name: str, before: dict[str, Any], result: dict[str, Any]) -> None:
    """Prints the result and writes it as JSON and as Markdown."""
    RESULTS.mkdir(exist_ok=True)
    facts = "\n".join(f"- {key}: {value}" for key, value in {**before, **result}.items() if key != "rows")
    text = f"# {name}\n\n{table(result['rows'])}\n\n{facts}\n"
    print(text)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps({**before, **result}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Parses the name of a benchmark and its options, and runs it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    train = commands.add_parser("training", help="samples/s beside the published algorithm, scaled down, on the CPU")
    train.add_argument("--rounds", type=int, default=7, help="turns of all contenders")
    train.add_argument("--samples", type=int, default=8, help="samples of each contender in a turn")
    train.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    load = commands.add_parser("data", help="start-up, memory and samples/s of loading")
    load.add_argument("--items", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    load.add_argument("--batches", type=int, default=100, help="batches of 1 to time")
    real = commands.add_parser("real-size", help="samples/s, MFU and peak memory at real size on a GPU")
    real.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    real.add_argument("--rounds", type=int, default=3, help="measurements, of which the median counts")
    real.add_argument("--steps", type=int, default=10, help="optimizer steps of one measurement")
    real.add_argument("--toy", action="store_true", help="a toy model on any device: checks the program only")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.name == "real-size" and device.type == "cpu" and not options.toy:
        parser.error("real-size needs a GPU; --toy checks the program without one")
    before = machine()
    if options.name == "training":
        result = training.run(options.rounds, options.samples, tuple(options.batch_sizes))
    elif options.name == "data":
        result = data.run(options.items, options.batches)
    else:
        result = real_size.run(device, options.batch_sizes, options.rounds, options.steps, options.toy)
        if options.toy:
            return
    keep(options.name, before, result)


if __name__ == "__main__":
    main()
