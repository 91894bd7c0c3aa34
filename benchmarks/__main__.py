"""`python -m benchmarks NAME [options]`: runs one benchmark, prints its table, and keeps it in benchmarks/results/."""

import argparse
import json
import os
import platform
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import processor_name
from lavic.files import write_text

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
    """The rows as a Markdown table; lists stand apart."""
    names = [name for name in rows[0] if not isinstance(rows[0][name], list)]
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def lists(rows: list[dict[str, Any]]) -> str:
    """Every row's lists, such as where its time goes."""
    text = ""
    for number, row in enumerate(rows, 1):
        for name, lines in row.items():
            if isinstance(lines, list):
                text += f"\nRow {number}, {name}:\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"
    return text


def keep(name: str, before: dict[str, Any], result: dict[str, Any], folder: Path = RESULTS) -> None:
    """Prints the result and writes it as JSON and as Markdown."""
    folder.mkdir(exist_ok=True)
    facts = "\n".join(f"- {key}: {value}" for key, value in {**before, **result}.items() if key != "rows")
    text = f"# {name}\n\n{table(result['rows'])}\n\n{facts}\n{lists(result['rows'])}"
    print(text)
    write_text(folder / f"{name}.md", text)
    write_text(folder / f"{name}.json", json.dumps({**before, **result}, indent=1) + "\n")


def kept_rows(name: str, before: dict[str, Any], toy: bool, folder: Path) -> list[dict[str, Any]]:
    """The rows that an earlier call kept, if it ran on the same device with the same versions."""
    file = folder / f"{name}.json"
    if not file.is_file():
        return []
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    same = ("gpu", "processor", "python", *PACKAGES)
    alike = result.get("toy") == toy and all(result.get(fact) == before.get(fact) for fact in same)
    rows: list[dict[str, Any]] = result["rows"]
    return rows if alike else []


def main() -> None:
    """Parses the name of a benchmark and its options, and runs it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    train = commands.add_parser("training", help="samples/s beside the published algorithm, scaled down, on the CPU")
    train.add_argument("--rounds", type=int, default=7, help="turns of all contenders")
    train.add_argument("--samples", type=int, default=8, help="samples of each contender in a turn")
    train.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    peers = commands.add_parser("peers", help="samples/s of instruction tuning beside the programs that users know")
    peers.add_argument("--rounds", type=int, default=8, help="turns of all contenders; 8 are an epoch")
    peers.add_argument("--ways", nargs="+", choices=["lora", "projector", "vision"], help="what is trained; all three")
    peers.add_argument("--llama_factory", metavar="PYTHON", help="of the environment in which LLaMA-Factory is")
    load = commands.add_parser("data", help="start-up, memory and samples/s of loading")
    load.add_argument("--items", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    load.add_argument("--batches", type=int, default=100, help="batches of 1 to time")
    commands.add_parser("operations", help="operations that a step dispatches, counted on the meta device")
    real = commands.add_parser("real-size", help="samples/s, MFU and peak memory at real size on a GPU")
    real.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    real.add_argument("--rounds", type=int, default=3, help="measurements, of which the median counts")
    real.add_argument("--steps", type=int, default=10, help="optimizer steps of one measurement")
    real.add_argument("--seconds", type=float, default=float("inf"), help="no row is begun that would end later")
    real.add_argument("--results", type=Path, default=RESULTS, help="folder of the table, which is gone on with")
    real.add_argument("--toy", action="store_true", help="a toy model on any device: checks the program only")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.name == "real-size" and device.type == "cpu" and not options.toy:
        parser.error("real-size needs a GPU; --toy checks the program without one")
    if options.name == "training" and options.samples < max(options.batch_sizes):
        parser.error(f"--samples {options.samples} is less than a batch of {max(options.batch_sizes)}; give that many")
    before = machine()
    benchmark: Any = import_module(f"benchmarks.{options.name.replace('-', '_')}")  # and nothing that others need
    if options.name == "training":
        keep(options.name, before, benchmark.run(options.rounds, options.samples, tuple(options.batch_sizes)))
    elif options.name == "peers":
        ways = options.ways or list(benchmark.WAYS)
        keep(options.name, before, benchmark.run(options.rounds, ways=ways, llama_factory=options.llama_factory))
    elif options.name == "data":
        keep(options.name, before, benchmark.run(options.items, options.batches))
    elif options.name == "operations":
        keep(options.name, before, benchmark.run())
    else:
        name = f"{options.name}-toy" if options.toy else options.name
        measured = (sorted(options.batch_sizes), options.rounds, options.steps, options.toy)
        benchmark.run(
            device, *measured, kept_rows(name, before, options.toy, options.results),
            lambda result: keep(name, before, result, options.results), options.seconds,
        )  # fmt: skip


if __name__ == "__main__":
    main()
