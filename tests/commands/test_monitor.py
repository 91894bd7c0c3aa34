"""The monitor's screens, as a terminal and as a pipe show them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import lavic.__main__
from lavic.commands.monitor import main, screen
from lavic.runs.run_files import find_run
from lavic.runs.terminal_chart import draw
from tests.small_runs import train_event, validation_event, write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    now = time.time()
    events = [
        train_event(10, 2.5, ago=30), train_event(20, 2.0, ago=20), validation_event(20, 2.25),
        {"time": now, "event": "warning", "message": "the disk is nearly full"},
        {"time": now, "event": "skip", "step": 21, "samples": ["B000000001_0.jpg"]},
        {"time": now, "event": "checkpoint", "step": 20, "path": "out/last.ckpt"},
        {"time": now, "event": "adapter", "step": 20, "val_loss": 2.25, "path": "out/best"},
    ]  # fmt: skip
    write_run(tmp_path, "training_20260101_000000", events)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "140")
        assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_summary_prints_progress_and_every_metric(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--logs", str(logs), "--summary")
    for part in (
        "running", "step 20/40", "about 0:00:2", "2.0000", "2.2500", "visual_gain", "0.3100", "0.4200", "3.25", "780",
        "17.50 GiB", "3 (2 broken image", "step 20, val_loss 2.2500",
    ):  # fmt: skip
        assert part in text, part


def test_errors_prints_warnings_and_skipped_steps(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--logs", str(logs), "--errors")
    assert "the disk is nearly full" in text
    assert "B000000001_0.jpg" in text
    assert "val_loss" not in text


def test_loss_draws_the_curve(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--logs", str(logs), "--loss")
    assert "●" in text
    assert any(0x2800 < ord(letter) < 0x2900 for letter in text)


def test_gpu_says_where_there_is_none(logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PATH", "")
    assert "no nvidia-smi" in printed(capsys, "--logs", str(logs), "--gpu")


def test_the_whole_screen_fits_a_usual_terminal(logs: Path) -> None:
    console = Console(width=120, height=40, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(screen(find_run(logs), console))
    assert len(console.export_text().splitlines()) <= 40


def test_it_starts_without_torch(logs: Path) -> None:
    code = "import sys, lavic.commands.monitor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_script_prints_once_without_a_terminal(logs: Path) -> None:
    done = subprocess.run(
        ["./monitor_training.sh", "--logs", str(logs)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "training_20260101_000000" in done.stdout


def test_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lavic.__main__.main(["monitor", "--logs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: There is no run in")


def test_the_curve_goes_through_its_points() -> None:
    falling = draw([(0, 1.0), (10, 0.0)], [], width=30, height=9)
    assert falling[0].startswith(" 1│⠑") or falling[0].startswith(" 1│⠢")
    assert len(falling) == 9
    assert falling[-2].rstrip()[-1] != "│"
    assert falling[-1].split() == ["0", "10"]


def test_one_point_is_drawn_and_none_is_not() -> None:
    assert "●" in "".join(draw([], [(5, 2.0)], 30, 6))
    assert draw([], [], 30, 6) == []
