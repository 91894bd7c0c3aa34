"""A server with faults, and a folder to crawl into, for each test that asks for them."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crawl.cli import main
from tests.crawl.fault_server import FaultServer

# Seconds, so that no test waits for a default that is meant for the internet.
QUICK = ["--backoff", "0.05", "--connect-timeout", "2", "--silence-timeout", "0.7", "--total-timeout", "3"]


class CrawlFolder:
    """A metadata file, the image folder that it fills, and the journal beside it."""

    def __init__(self, root: Path, server: FaultServer) -> None:
        self.root, self.server = root, server
        self.source, self.out = root / "items.json", root / "images"

    def want(self, urls: dict[str, str]) -> None:
        """Make the metadata ask for these URLs, by item: the file is `ITEM_0.jpg`."""
        self.source.write_text(json.dumps({item: {"images": [{"large": url}]} for item, url in urls.items()}))

    def arguments(self, *more: str, allow: bool = True) -> list[str]:
        """The command line that fills the folder."""
        named = ["--source", str(self.source), "--out", str(self.out), *QUICK]
        return named + (["--allow-host", f"127.0.0.1:{self.server.port}"] if allow else []) + list(more)

    def crawl(self, *more: str, allow: bool = True) -> int:
        """Run the crawler in this process; the exit status."""
        return main(self.arguments(*more, allow=allow))

    def start(self, *more: str) -> "subprocess.Popen[str]":
        """Run the crawler in a process of its own."""
        command = [sys.executable, "-m", "crawl", *self.arguments(*more)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "COLUMNS": "200"}
        )

    def files(self) -> set[str]:
        """Everything in the image folder."""
        return {path.name for path in self.out.iterdir()} if self.out.exists() else set()

    def stored(self) -> set[str]:
        """What stands under a final name."""
        return {name for name in self.files() if not name.startswith(".")}

    def rows(self) -> dict[str, dict[str, Any]]:
        """The journal's row of every URL."""
        database = sqlite3.connect(self.root / "crawl.sqlite")
        database.row_factory = sqlite3.Row
        try:
            return {row["url"]: dict(row) for row in database.execute("SELECT * FROM url")}
        finally:
            database.close()

    def failures(self) -> list[dict[str, Any]]:
        """The list of failures."""
        return [json.loads(line) for line in (self.root / "failures.jsonl").read_text().splitlines()]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: FaultServer) -> CrawlFolder:
    return CrawlFolder(tmp_path, server)
