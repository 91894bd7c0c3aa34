"""The crawler's speed beside two loops that check nothing, in one interleaved run.

    python -m benchmarks.crawl_speed --rounds 5

Each round fetches the same 3,000 JPEGs of 50-150 KB from one local server with each of
  limit    a plain aiohttp loop that writes what it gets (as many in flight as the crawler)
  threads  64 threads of `requests` that write what they get
  crawl    `python -m crawl` as a library call: sources, journal, checks, decoding, fsync and renaming included
in a process of its own, its imports not timed. A ratio is taken within a round, and the median over the rounds
is printed, so that other work on the machine falls on all three. Server and client share the processor's cores.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import processor_name

IMAGES = 3000
DIFFERENT = 60  # images that the server holds; every URL gets one of them


class Case(NamedTuple):
    """One set of conditions, and what the crawler must reach in it."""

    latency_ms: int
    in_flight: int
    targets: dict[str, float]  # contender: least ratio of images a second, crawl / contender


CASES = [
    Case(50, 64, {"limit": 0.9, "threads": 1.35}),
    Case(0, 64, {"threads": 1.5}),
    Case(100, 256, {"threads": 1.5}),
]


def make_images() -> list[bytes]:
    """JPEGs of 50-150 KB with photographs' mixture of smooth and rough, the same on every call."""
    import numpy as np
    from PIL import Image

    images: list[bytes] = []
    rng = np.random.default_rng(0)
    while len(images) < DIFFERENT:
        side = int(rng.integers(450, 801))
        blobs = Image.fromarray(rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8))
        smooth = np.asarray(blobs.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
        rough = smooth + rng.integers(-6, 7, smooth.shape)
        stream = io.BytesIO()
        Image.fromarray(rough.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        if 50_000 <= stream.tell() <= 150_000:
            images.append(stream.getvalue())
    return images


class ImageProtocol(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as little work as possible, each answer `latency` seconds late."""

    def __init__(self, answers: list[bytes], latency: float) -> None:
        self._answers, self._latency = answers, latency
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request head that is whole."""
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, self._head = self._head.split(b"\r\n\r\n", 1)
            number = int(head.split(b" ", 2)[1].removeprefix(b"/").removesuffix(b".jpg"))
            answer = self._answers[number % len(self._answers)]
            if self._latency:
                asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def serve(latency: float) -> None:
    """Serve until killed; the port is printed first."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    answers = [head.format(len(image)).encode() + image for image in make_images()]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ImageProtocol(answers, latency), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def run_limit(port: int, in_flight: int, folder: Path) -> float:
    """Seconds of the plain aiohttp loop."""
    import aiohttp

    async def go() -> None:
        numbers = iter(range(IMAGES))
        connector = aiohttp.TCPConnector(limit=in_flight)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def work() -> None:
                for number in numbers:
                    async with session.get(f"http://127.0.0.1:{port}/{number}.jpg") as answer:
                        body = await answer.read()
                    (folder / f"{number}.jpg").write_bytes(body)

            await asyncio.gather(*(work() for _ in range(in_flight)))

    started = time.perf_counter()
    asyncio.run(go())
    return time.perf_counter() - started


def run_threads(port: int, in_flight: int, folder: Path) -> float:
    """Seconds of 64 threads with a `requests` session each, whatever `in_flight` says."""
    import requests

    local = threading.local()

    def fetch(number: int) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        answer = local.session.get(f"http://127.0.0.1:{port}/{number}.jpg", timeout=10, stream=True)
        with (folder / f"{number}.jpg").open("wb") as stream:
            for chunk in answer.iter_content(chunk_size=8192):
                stream.write(chunk)

    started = time.perf_counter()
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(fetch, range(IMAGES)))
    return time.perf_counter() - started


def run_crawl(port: int, in_flight: int, folder: Path) -> float:
    """Seconds of the crawler from its metadata file to its closing table."""
    from rich.console import Console

    from crawl.session import crawl
    from crawl.settings import Settings

    items = {str(number): {"images": [{"large": f"http://127.0.0.1:{port}/{number}.jpg"}]} for number in range(IMAGES)}
    source = folder / "items.json"
    source.write_text(json.dumps(items))
    settings = Settings(
        source=[str(source)], out=[str(folder / "out")], in_flight=in_flight, allow_host=[f"127.0.0.1:{port}"]
    )
    started = time.perf_counter()
    status = crawl(settings, Console(file=io.StringIO()), Console(file=io.StringIO()))
    seconds = time.perf_counter() - started
    if status or len(list((folder / "out").iterdir())) != IMAGES:
        raise SystemExit(f"the crawl ended with status {status}")
    return seconds


CONTENDERS: dict[str, Callable[[int, int, Path], float]] = {
    "limit": run_limit, "threads": run_threads, "crawl": run_crawl
}  # fmt: skip


def measure(name: str, port: int, in_flight: int, tmpfs: Path) -> float:
    """Seconds of one contender in a fresh process."""
    folder = Path(tempfile.mkdtemp(dir=tmpfs))
    try:
        command = [sys.executable, "-m", "benchmarks.crawl_speed", "--contender", name, str(port), str(in_flight)]
        done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])
    finally:
        shutil.rmtree(folder)


def run_case(case: Case, rounds: int, tmpfs: Path) -> dict[str, object]:
    """All rounds of one case."""
    command = [sys.executable, "-m", "benchmarks.crawl_speed", "--serve", str(case.latency_ms / 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
            measure("crawl", port, case.in_flight, tmpfs)  # warms the page cache and the server
            for _ in range(rounds):
                for name in random.sample(sorted(CONTENDERS), len(CONTENDERS)):
                    seconds[name].append(measure(name, port, case.in_flight, tmpfs))
        finally:
            server.kill()
    by_round = {
        name: [a / b for a, b in zip(seconds[name], seconds["crawl"], strict=True)] for name in ("limit", "threads")
    }
    ratios = {name: statistics.median(values) for name, values in by_round.items()}
    return {
        "latency_ms": case.latency_ms,
        "in_flight": case.in_flight,
        "images_per_second": {name: round(IMAGES / statistics.median(times)) for name, times in seconds.items()},
        "crawl_over": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "crawl_over_from_to": {
            name: [round(min(values), 3), round(max(values), 3)] for name, values in by_round.items()
        },
        "targets": case.targets,
        "reached": all(ratios[name] >= target for name, target in case.targets.items()),
        "seconds": {name: [round(value, 3) for value in times] for name, times in seconds.items()},
    }


def describe_machine() -> dict[str, object]:
    """What a number of this benchmark depends on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("aiohttp", "requests", "simplejpeg", "pillow")},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each case (default: 5)")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), help="where the files go")
    parser.add_argument("--result", type=Path, help="write the numbers there as JSON")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
    elif options.contender:
        name, port, in_flight, folder = options.contender
        print(CONTENDERS[name](int(port), int(in_flight), Path(folder)))
    else:
        result: dict[str, object] = describe_machine() | {"load_before": os.getloadavg()}
        cases: list[dict[str, object]] = []
        for case in CASES:
            cases.append(run_case(case, options.rounds, options.tmpfs))
            print(json.dumps({key: value for key, value in cases[-1].items() if key != "seconds"}))
        result |= {"cases": cases, "load_after": os.getloadavg()}
        if options.result:
            options.result.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
