"""Training speed of one and of two CPU processes with one thread each, on gloo:  python benchmarks/scaling.py

Needs two idle cores. Prints samples a second, the median over optimizer steps, and the ratio.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lavic.runs import find_run  # noqa: E402
from tests.conftest import tiny_checkpoint, write_described  # noqa: E402
from tests.training.command_line import fit  # noqa: E402

WARM_UP = 3  # steps that are not counted


def samples_per_second(folder: Path, processes: int, batch_size: int, samples: int) -> float:
    """Of one epoch, over all processes."""
    described = write_described(folder / "data", samples, 2)
    output = folder / f"out_{processes}"
    options = (f"--data.init_args.batch_size={batch_size}", "--trainer.limit_val_batches=0")
    fit(folder / "tiny", described, output, *options, processes=processes)
    events = find_run(output / "logs").of("train")[WARM_UP:]
    return statistics.median(e["samples_per_second"] for e in events)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=8, help="samples of a process's step (default: 8)")
    parser.add_argument("--samples", type=int, default=160, help="training samples (default: 160)")
    options = parser.parse_args()
    print("load:", Path("/proc/loadavg").read_text().strip())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tiny_checkpoint(folder / "tiny")
        speeds = [samples_per_second(folder, n, options.batch_size, options.samples) for n in (1, 2)]
    print(f"1 process: {speeds[0]:.2f} samples/s; 2 processes: {speeds[1]:.2f}; ratio {speeds[1] / speeds[0]:.2f}")


if __name__ == "__main__":
    main()
