"""The demo's image server: each fault shows itself as named, and the real crawler gets past the passing ones."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from crawl.cli import main as crawl
from lavic.demo.image_server import LASTING, PASSING, Fault, ImageServer, choose_faults


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 20 JPEGs."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (64, 64), (number * 12, 90, 40)).save(folder / f"B{number:02d}_0.jpg")
    return folder


def test_faults_are_seeded_and_complete() -> None:
    names = [f"{number}.jpg" for number in range(40)]
    faults = choose_faults(names, seed=3)
    assert faults == choose_faults(reversed(names), seed=3) != choose_faults(names, seed=4)
    counts = Counter(faults.values())
    assert all(counts[fault] == 1 for fault in LASTING)
    assert all(counts[fault] >= 1 for fault in PASSING)
    assert not set(choose_faults(names[:5]).values()) & set(LASTING)


def test_each_fault_shows_itself(images: Path) -> None:
    names = sorted(path.name for path in images.iterdir())
    faults = dict(zip(names, Fault, strict=False))
    by_fault = {fault: name for name, fault in faults.items()}

    async def ask() -> None:
        async with ImageServer(images, faults) as server, aiohttp.ClientSession() as session:

            async def get(name: str) -> tuple[int, bytes]:
                async with session.get(server.url(name)) as answer:
                    return answer.status, await answer.read()

            whole = (200, (images / names[10]).read_bytes())
            assert await get(names[10]) == whole
            assert (await get(by_fault[Fault.UNAVAILABLE_ONCE]))[0] == 503
            assert (await get(by_fault[Fault.MISSING]))[0] == (await get(by_fault[Fault.MISSING]))[0] == 404
            for _ in range(2):
                status, body = await get(by_fault[Fault.HTML])
                assert status == 200
                assert b"<html" in body
            with pytest.raises(aiohttp.ClientPayloadError):
                await get(by_fault[Fault.TRUNCATED_ONCE])
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"GET /{by_fault[Fault.RESET_ONCE]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert await reader.read() == b"", "the connection ends without an answer"
            writer.close()
            for fault in PASSING:
                assert await get(by_fault[fault]) == (200, (images / by_fault[fault]).read_bytes())
            assert (await get("..%2F..%2Fetc%2Fpasswd"))[0] == 404

    asyncio.run(ask())


def test_the_crawler_gets_all_that_can_be_had(images: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lavic.demo.image_server", str(images)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            names = sorted(path.name for path in images.iterdir())
            lines = [{"image": f"http://127.0.0.1:{port}/{name}", "image_name": name} for name in names]
            source = tmp_path / "meta.jsonl"
            source.write_text("".join(json.dumps(line) + "\n" for line in lines))
            out = tmp_path / "out"
            arguments = ["--source", str(source), "--out", str(out), "--allow-host", f"127.0.0.1:{port}"]
            assert crawl(arguments) == 0
        finally:
            server.kill()
    lost = {name for name, fault in choose_faults(names).items() if fault in LASTING}
    assert len(lost) == 2
    assert {path.name for path in out.iterdir()} == set(names) - lost
    for path in out.iterdir():
        assert path.read_bytes() == (images / path.name).read_bytes()
