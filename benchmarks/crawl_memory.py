"""The crawler's resident memory at 3,000, 100,000 and 1,000,000 URLs.

    python -m benchmarks.crawl_memory

Everything but the network is real: the metadata file, the journal, the queue, verification and the files. A stub
transport answers at once: with a small JPEG up to 100,000 URLs, and with 404 for nine in ten above, since a
million files say more about the file system than about the crawler. Each size runs in a process of its own; the
peak of its resident memory is printed (Linux: bytes of `ru_maxrss` x 1024), and the sum of its peak and those of the
processes that verify images for it. They share pages, which the sum counts more than once: it is an upper bound.
"""

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (3_000, 100_000, 1_000_000)
MOST_GROWTH_MB = 60  # from 3,000 to 100,000 URLs
MOST_MB = 250  # at 1,000,000 URLs


def crawl_with_stub(urls: int, folder: Path) -> dict[str, float]:
    """Crawl `urls` URLs in this process; its peak memory in MB (10^6 bytes) and URLs a second."""
    from PIL import Image
    from rich.console import Console

    from crawl.fetch import Body, FetchError, Kind
    from crawl.headers import Validators
    from crawl.session import crawl
    from crawl.settings import Settings

    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((64, 64)).save(stream, "JPEG")
    image = stream.getvalue()

    class Stub:
        """Answers without a network."""

        async def get(self, url: str, known: Validators) -> Body:
            """An image, or 404."""
            if urls > 100_000 and int(url.rsplit("/", 1)[1]) % 10:
                raise FetchError("HTTP status 404", Kind.PERMANENT, 404)
            return Body(bytes(bytearray(image)), 200)  # a new object, as from a socket

        async def close(self) -> None:
            """Nothing to close."""

    source = folder / "items.json"
    with source.open("w") as file:
        file.write("{")
        for number in range(urls):
            item = {"images": [{"large": f"https://images.example/a/longer/path/as/in/life/{number}"}]}
            file.write(f"{',' if number else ''}{json.dumps(f'B{number:09d}')}: {json.dumps(item)}")
        file.write("}")
    processes = min(8, os.cpu_count() or 1)  # the default
    settings = Settings(source=[str(source)], out=[str(folder / "out")], decode_processes=processes)
    started = time.perf_counter()
    status = crawl(settings, Console(file=io.StringIO()), Console(file=io.StringIO()), lambda _: Stub())
    seconds = time.perf_counter() - started
    assert status == 0, status
    main, largest = (
        resource.getrusage(who).ru_maxrss * 1024 / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "urls": urls,
        "main_mb": round(main, 1),
        "peak_mb": round(main + processes * largest, 1),
        "processes": processes,
        "urls_per_second": round(urls / seconds),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), help="where the files go")
    parser.add_argument("--result", type=Path, help="write the numbers there as JSON")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(crawl_with_stub(int(options.one[0]), Path(options.one[1]))))
        return
    rows = []
    for size in SIZES:
        folder = Path(tempfile.mkdtemp(dir=options.tmpfs))
        try:
            command = [sys.executable, "-m", "benchmarks.crawl_memory", "--one", str(size), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
        finally:
            shutil.rmtree(folder)
    growth = rows[1]["peak_mb"] - rows[0]["peak_mb"]
    reached = growth < MOST_GROWTH_MB and rows[2]["peak_mb"] < MOST_MB
    result = {"rows": rows, "growth_mb": round(growth, 1), "reached": reached, "load_after": os.getloadavg()}
    print(json.dumps(result))
    if options.result:
        options.result.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
