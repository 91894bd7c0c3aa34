"""Names of models where the hub cannot be asked: one sentence, soon, and a filled cache goes on working."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "owner/name"


class Counting(http.server.BaseHTTPRequestHandler):
    """A hub that answers each request with status 503."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def ailing_hub() -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that answers nothing but 503, and what it was asked for."""
    asked: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Counting,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def lavic(home: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-m", "lavic", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def in_the_cache(home: Path, checkpoint: Path) -> None:
    """Lays a checkpoint out as the hub's client keeps it."""
    model = home / "hub" / f"models--{NAME.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0" * 40)
    shutil.copytree(checkpoint, model / "snapshots" / ("0" * 40))


COMMANDS = {
    "fit": ("fit", "--config", "distill", f"--model.init_args.base.name={NAME}"),
    "plan": ("plan", "--config", "distill", f"--model.init_args.base.name={NAME}"),
    "chat": ("web", "--port", "0", "--chat_model", NAME),
    "compose": ("compose", "--vision", NAME, "--language", NAME, "--out", "out_composed_never"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_an_unreachable_hub_is_asked_once_and_told_in_one_sentence(
    command: str, ailing_hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    endpoint, asked = ailing_hub
    flags = [f"--trainer.default_root_dir={tmp_path / 'out'}", f"--logs_dir={tmp_path / 'logs'}"]
    done = lavic(tmp_path, endpoint, *COMMANDS[command], *(flags if command == "fit" else ()))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, len(errors)) == (2, 1), done.stderr
    assert NAME in errors[0]
    assert "it answered 503" in errors[0]
    assert "Traceback" not in done.stderr
    assert "Retrying" not in done.stderr
    assert len([path for path in asked if NAME in path]) == 1


def test_a_model_in_the_cache_is_planned_with_without_the_hub(
    tiny: Path, ailing_hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    in_the_cache(tmp_path, tiny)
    done = lavic(tmp_path, ailing_hub[0], *COMMANDS["plan"], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == NAME
    assert len([path for path in ailing_hub[1] if NAME in path]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("config", ["align", "distill", "instruct", "recommend", "vqa"])
def test_every_shipped_configuration_is_planned_without_a_network(config: str, tmp_path: Path) -> None:
    done = lavic(tmp_path, "http://127.0.0.1:9", "plan", "--json", "--config", config)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"]["total"] > 7e9
