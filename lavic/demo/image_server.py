"""A small HTTP server on the loopback that serves a folder of images, with the internet's ordinary faults.

The demo crawls it, so that what a user sees first is the real crawler at its real work. Knows nothing of torch.
"""

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from aiohttp import web

HTML = b"<!DOCTYPE html><html><body><h1>Are you a robot?</h1></body></html>"


class Fault(StrEnum):
    """What is wrong with an image's URL."""

    UNAVAILABLE_ONCE = "503 with Retry-After, once"
    TRUNCATED_ONCE = "truncated body, once"
    RESET_ONCE = "connection reset, once"
    MISSING = "404 for ever"
    HTML = "an HTML page under status 200 as image/jpeg, for ever"


PASSING = (Fault.UNAVAILABLE_ONCE, Fault.TRUNCATED_ONCE, Fault.RESET_ONCE)
LASTING = (Fault.MISSING, Fault.HTML)


def choose_faults(names: Iterable[str], seed: int = 0, passing_share: float = 0.1) -> dict[str, Fault]:
    """A fault for some of the file names, the same for the same names and seed.

    `passing_share` of the names get one of the three passing faults, at least one name each; where there are ten
    names or more, one name each gets the two lasting ones, whose images cannot be had.
    """
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    lasting = LASTING if len(shuffled) >= 10 else ()
    passing = max(len(PASSING), round(passing_share * len(shuffled)))
    faults = [*lasting, *(PASSING[number % len(PASSING)] for number in range(passing))]
    return dict(zip(shuffled, faults, strict=False))


class ImageServer:
    """Serves `folder`'s files as `/NAME`. Used as `async with ImageServer(folder) as server: server.url(name)`."""

    def __init__(self, folder: Path, faults: dict[str, Fault] | None = None, port: int = 0) -> None:
        """`faults`: by file name, by default as `choose_faults` gives them. `port` 0: any free one."""
        self._folder = folder
        names = [path.name for path in folder.iterdir() if path.is_file()]
        self.faults = choose_faults(names) if faults is None else faults
        self.port = port
        self.asked: Counter[str] = Counter()
        application = web.Application()
        application.router.add_get("/{name}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    @property
    def address(self) -> str:
        """HOST:PORT, as `python -m crawl --allow-host` takes it."""
        return f"127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        """The URL of a file."""
        return f"http://{self.address}/{name}"

    async def __aenter__(self) -> "ImageServer":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        first = not self.asked[name]
        self.asked[name] += 1
        fault = self.faults.get(name)
        path = self._folder / name
        if fault is Fault.MISSING or "/" in name or not path.is_file():
            raise web.HTTPNotFound
        if fault is Fault.HTML:
            return web.Response(body=HTML, content_type="image/jpeg")
        if fault is Fault.UNAVAILABLE_ONCE and first:
            return web.Response(status=503, headers={"Retry-After": "1"})
        if fault is Fault.RESET_ONCE and first:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        body = await asyncio.to_thread(path.read_bytes)
        if fault is Fault.TRUNCATED_ONCE and first:
            return await self._truncated(request, body)
        return web.Response(body=body, content_type="image/jpeg")

    async def _truncated(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg", "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response


async def _serve_for_ever(folder: Path, port: int) -> None:
    async with ImageServer(folder, port=port) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """`python -m lavic.demo.image_server FOLDER`: serve until killed; the port is printed first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder whose files are served")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one (default: 0)")
    options = parser.parse_args()
    try:
        asyncio.run(_serve_for_ever(options.folder, options.port))
    except (OSError, OverflowError) as error:
        parser.error(f"--port {options.port} cannot be listened on ({error}); give another.")


if __name__ == "__main__":
    main()
