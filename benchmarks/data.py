"""Start-up, memory and samples/s of stage 1's loading: `python -m benchmarks data`.

For catalogues of growing size, in a fresh process each: the seconds from nothing to the first batch, once with every
image still to be checked, once with the crawler's journal beside them, and once with the check remembered; a loader
worker's own memory (private and written to, so neither what it shares with its parent nor pages of the mapped table);
and samples/s with 1 and 2 workers. Items share a few distinct images by hard links, so that disk space stays small and
every file is still opened, decoded and cut.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.workload import write_images
from crawl.journal import Journal, State, Verdict
from crawl.sources import Wanted
from lavic.catalogue.images import image_size

MEASURE = """
import json, multiprocessing, os, psutil, sys, time
from pathlib import Path
def private(pid):
    return sum(area.private_dirty for area in psutil.Process(pid).memory_maps())
start = time.perf_counter()
from types import SimpleNamespace
from lavic.tasks.distillation.data import DistillationData
imports = time.perf_counter() - start
folder, model, workers, batches = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = DistillationData(
    folder / "train.json", folder / "valid.jsonl", folder / "images", folder / "images",
    model_name=model, num_workers=workers, cache_dir=folder / "cache",
)
data.trainer = SimpleNamespace(
    accumulate_grad_batches=1, world_size=1, global_rank=0, is_global_zero=True, default_root_dir=str(folder / "out"),
    state=SimpleNamespace(fn="fit"),
)
start = time.perf_counter()
data.prepare_data(); data.setup("fit")
ready = time.perf_counter() - start
stream = iter(data.train_dataloader())
next(stream)
first = time.perf_counter() - start
samples, start = 0, time.perf_counter()
for _, batch in zip(range(batches), stream):
    samples += len(batch["input_ids"])
rate = samples / (time.perf_counter() - start)
worker = max(private(child.pid) for child in multiprocessing.active_children())
print(json.dumps({"ready": ready, "first": first, "rate": rate, "worker": worker}))
"""


def write_catalogue(folder: Path, items: int) -> None:
    """`items` training items with an image each, and eight to validate on."""
    images = folder / "images"
    images.mkdir(parents=True)
    sources = write_images(folder, 16)
    catalogue = {}
    for number in range(items):
        name = f"B{number:09d}_0.jpg"
        os.link(sources[number % len(sources)], images / name)
        text = f"The image shows product {number} with a plain border on a wooden table. " * 6
        catalogue[name[:-6]] = {
            "title": f"Product {number} of cotton",
            "images": [{"large": f"https://example.org/{name}"}],
            "image_descriptions_llava_cleaned": {name: text},
        }
    (folder / "train.json").write_text(json.dumps(catalogue))
    lines = []
    for number in range(8):
        name = f"B{number:09d}_0.jpg"
        lines.append({
            "title": f"Product {number}", "image_name": name, "image": f"https://example.org/{name}",
            "image_description_llava_cleaned": "The image shows a product.",
        })  # fmt: skip
    (folder / "valid.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_journal(folder: Path) -> None:
    """The journal that the crawler would have left of the images."""
    images = folder / "images"
    journal = Journal(folder / "crawl.sqlite")
    journal.begin_run()
    names = sorted(path.name for path in images.iterdir())
    journal.want(journal.folder_key(images), [Wanted(f"https://example.org/{name}", name, name) for name in names])
    known: dict[int, tuple[bytes, tuple[int, int]]] = {}  # by inode: the files are links to a few
    after = 0
    while rows := journal.page(after, 1000):
        after = rows[-1].id
        verdicts = []
        for row in rows:
            [file] = row.files
            path = Path(file.path)
            stat = path.stat()
            if stat.st_ino not in known:
                known[stat.st_ino] = hashlib.sha256(path.read_bytes()).digest(), image_size(path)
            sha256, (width, height) = known[stat.st_ino]
            stored = [(file.id, stat.st_size, sha256, stat.st_mtime_ns)]
            verdicts.append(
                Verdict(row.id, State.DONE, size=stat.st_size, width=width, height=height, sha256=sha256, files=stored)
            )
        journal.enter(verdicts)
    journal.close()


def measured(folder: Path, model: Path, workers: int, batches: int) -> dict[str, float]:
    """One fresh process's figures."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(folder), str(model), str(workers), str(batches)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(sizes: list[int], batches: int = 100) -> dict[str, Any]:
    """A row for each size."""
    from lavic.demo.toy_llava import tiny_checkpoint

    rows = []
    for items in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "data"
            model = Path(name) / "toy_model"
            tiny_checkpoint(model)
            write_catalogue(folder, items)
            start = time.perf_counter()
            first = measured(folder, model, 1, 1)
            shutil.rmtree(folder / "cache")
            write_journal(folder)
            crawled = measured(folder, model, 1, 1)
            again = measured(folder, model, 1, batches)
            two = measured(folder, model, 2, batches)
            rows.append({
                "items": items,
                "first start s": round(first["first"], 1),
                "first start after a crawl s": round(crawled["first"], 1),
                "later start s": round(again["first"], 1),
                "worker's private MB": round(again["worker"] / 1e6, 1),
                "samples/s, 1 worker": round(again["rate"], 1),
                "samples/s, 2 workers": round(two["rate"], 1),
            })  # fmt: skip
            print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    return {"batch size": 1, "batches": batches, "rows": rows}
