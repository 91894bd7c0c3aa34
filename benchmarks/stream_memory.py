"""How much a process grows that streams a large .jsonl of records or of questions.

    python -m benchmarks.stream_memory [--megabytes 500] [--result FILE]

For instruction records (about 1 KB each) and for questions (about 150 bytes), in a fresh process each, with `streaming:
true`: the data module first loads a small file, so that libraries, tokenizer and images are there; from then on growth
counts. It then makes the large file's index, plans an epoch, and takes training batches of 8 from two workers, shuffled
over the whole file. `grown_mb` is the growth of the process's largest resident memory (Linux: `ru_maxrss`, 10^6 bytes);
`worker_mb` that of the larger worker over the process as it was when the workers were made: its own pages alone.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MOST_GROWTH_MB = 300
BATCHES = 200
IMAGES = 16
KINDS = ("records", "questions")
WORDS = "the painting shows a woman with a red hat and two dogs near the old harbour at night in winter".split()  # noqa: SIM905


def line_of(kind: str, number: int) -> str:
    """The entry of that number; every fourth record is text alone."""
    image = f"image_{number % IMAGES}.jpg"
    if kind == "questions":
        asked = f"what stands behind the {WORDS[number % len(WORDS)]} number {number}"
        entry: dict[str, Any] = {
            "image": image,
            "question": asked,
            "answer": f"{WORDS[number * 7 % len(WORDS)]} {number % 1000}",
        }
        return json.dumps({**entry, "need_external_knowledge": number % 3 == 0})
    seen = number % 4 > 0
    turns = []
    for turn in range(3):
        words = " ".join(WORDS[(number * 31 + turn * 7 + i) % len(WORDS)] for i in range(45))
        asked = "<image>\n" if seen and not turn else ""
        turns += [{"from": "human", "value": f"{asked}What of {turn}?"}, {"from": "gpt", "value": words}]
    return json.dumps({"id": f"{number:012d}", "conversations": turns} | ({"image": image} if seen else {}))


def write_lines(path: Path, kind: str, size: int) -> int:
    """Entries until the file has `size` bytes; how many."""
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            written += file.write(line_of(kind, number) + "\n")
            number += 1
    return number


def resident_mb() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def data_of(kind: str, folder: Path, train: Path, model: str) -> Any:
    """A loaded data module."""
    from lavic.retrieval.passages import Knowledge
    from lavic.tasks.instruction.data import InstructionData
    from lavic.tasks.vqa.data import VqaData

    small, images = folder / "small.jsonl", folder / "images"
    options: Any = {"batch_size": 8, "num_workers": 2, "model_name": model, "streaming": True}
    options["cache_dir"] = folder / "cache"
    data: Any
    if kind == "records":
        data = InstructionData(train, small, images, template="mistral", **options)
    else:
        data = VqaData(train, small, small, images, knowledge=Knowledge("ignore"), **options)
    data.trainer = SimpleNamespace(
        accumulate_grad_batches=1, world_size=1, global_rank=0, is_global_zero=True, state=SimpleNamespace(fn="fit"),
        default_root_dir=str(folder / "out"),
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    return data


def stream(kind: str, folder: Path, model: str) -> dict[str, Any]:
    """Streams `large.jsonl` of a folder in this process."""
    import psutil

    def own_pages(pid: int) -> float:
        return float(psutil.Process(pid).memory_full_info().uss) / 1e6

    small = data_of(kind, folder, folder / "small.jsonl", model)
    assert len(list(small.train_dataloader())) > 0
    before, started = resident_mb(), time.perf_counter()
    data = data_of(kind, folder, folder / "large.jsonl", model)
    indexed, started = time.perf_counter() - started, time.perf_counter()
    batches = iter(data.train_dataloader())
    next(batches)
    workers = [child.pid for child in psutil.Process().children()]
    first = time.perf_counter() - started
    at_first = max(map(own_pages, workers))
    started = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    rate = 8 * BATCHES / (time.perf_counter() - started)
    return {
        "kind": kind,
        "entries": data.sample_counts["train"],
        "before_mb": round(before, 1),
        "grown_mb": round(resident_mb() - before, 1),
        "worker_own_mb": round(max(map(own_pages, workers)), 1),
        "worker_grown_mb": round(max(map(own_pages, workers)) - at_first, 1),
        "index_mb": round(max(path.stat().st_size for path in (folder / "cache").glob("*.arrow")) / 1e6, 1),
        "index_s": round(indexed, 1),
        "first_batch_s": round(first, 1),
        "samples_per_second": round(rate, 1),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500, help="of each file, 10^6 bytes")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--folder", type=Path, help="where the files go; the system's own for such")
    parser.add_argument("--result", type=Path, help="write the numbers there as JSON")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, folder, model = options.one
        print(json.dumps(stream(kind, Path(folder), model)))
        return
    from benchmarks.workload import write_images
    from lavic.demo.toy_llava import tiny_checkpoint

    rows = []
    for kind in options.kinds:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            (folder / "images").mkdir()
            for number, path in enumerate(write_images(folder, IMAGES, 200)):
                path.rename(folder / "images" / f"image_{number}.jpg")
            tiny_checkpoint(folder / "model")
            write_lines(folder / "small.jsonl", kind, 20_000)
            write_lines(folder / "large.jsonl", kind, options.megabytes * 10**6)
            command = [sys.executable, "-m", "benchmarks.stream_memory", "--one", kind, str(folder)]
            done = subprocess.run([*command, str(folder / "model")], stdout=subprocess.PIPE, text=True, check=True)
            rows.append({"megabytes": options.megabytes, **json.loads(done.stdout.splitlines()[-1])})
            print(rows[-1], flush=True)
        finally:
            shutil.rmtree(folder)
    reached = all(row["grown_mb"] < MOST_GROWTH_MB for row in rows)
    result = {"rows": rows, "reached": reached, "load_after": os.getloadavg()}
    print(json.dumps(result))
    if options.result:
        options.result.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
