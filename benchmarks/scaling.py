"""Training speed of one and of two CPU processes with one thread each, on gloo:  python -m benchmarks.scaling

Needs two idle cores. An untrained model of the demo's size trains one epoch in turns as one process and as two; printed
are samples a second, the median over the lines of the run's log, and the median ratio of the rounds.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from lavic.demo.toy_llava import TOY, tiny_checkpoint
from lavic.runs.run_files import find_run
from tests.conftest import write_described
from tests.training.command_line import fit

LOG_EVERY = 5  # steps; at each the processes wait for process 0 to write


def samples_per_second(folder: Path, processes: int, batch_size: int, samples: int, turn: int) -> float:
    """Of one epoch, over all processes."""
    described = write_described(folder / "data", samples, 2)
    output = folder / f"out_{processes}_{turn}"
    options = (
        f"--data.init_args.batch_size={batch_size}",
        "--trainer.limit_val_batches=0",
        f"--trainer.log_every_n_steps={LOG_EVERY}",
    )
    fit(folder / "model", described, output, *options, processes=processes)
    events = find_run(output / "logs").of("train")[1:]  # the first has the warm-up
    rates: list[float] = [event["samples_per_second"] for event in events]
    return statistics.median(rates)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=16, help="samples of a process's step (default: 16)")
    parser.add_argument("--samples", type=int, default=640, help="training samples (default: 640)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of one and of two processes (default: 3)")
    options = parser.parse_args()
    print("load:", *os.getloadavg())
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tiny_checkpoint(folder / "model", size=TOY)
        for turn in range(options.rounds):
            one, two = (samples_per_second(folder, n, options.batch_size, options.samples, turn) for n in (1, 2))
            ratios.append(two / one)
            print(f"1 process: {one:.2f} samples/s; 2 processes: {two:.2f}; ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
