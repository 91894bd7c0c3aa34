"""The report is one file that a browser shows whole, whatever is in the data."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from lavic.commands.report import main
from lavic.runs.svg_chart import chart, ticks
from tests.small_runs import train_event, validation_event, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</td><script>document.title='broken'</script> & é ☃"
LOOK = """<script>addEventListener("load", () => {
  const shown = image => image.complete && image.naturalWidth > 0 && image.getBoundingClientRect().width > 0;
  document.documentElement.dataset.seen = JSON.stringify({
    images: [...document.images].map(shown), charts: document.querySelectorAll("svg polyline").length,
    title: document.title, text: document.body.innerText, width: document.documentElement.scrollWidth,
    requests: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length })
})</script>"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    events = [train_event(s, 3 - s / 20) for s in (10, 20, 30)]
    events += [train_event(40, float("nan")), validation_event(40, 2.25)]
    events += [{"time": 0, "event": "warning", "message": HOSTILE}]
    directory = write_run(tmp_path, "training_20260101_000000", events)
    (directory / "config.yaml").write_text("seed_everything: 42  # <b>\n")
    samples = directory / "samples" / "epoch_1"
    samples.mkdir(parents=True)
    sample = {"item": "B1", "title": HOSTILE, "image": "B1_0.jpg", "target": "a red towel", "generated": "a blue rug"}
    (samples / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    Image.new("RGB", (64, 64), "red").save(samples / "0.jpg")
    main(["training_20260101_000000", "--logs", str(tmp_path)])
    return directory / "report.html"


def test_nothing_is_loaded_from_elsewhere(report: Path) -> None:
    text = report.read_text()
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "<script>" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_chromium_shows_curves_images_and_texts(report: Path, tmp_path: Path) -> None:
    watched = tmp_path / "watched.html"
    watched.write_text(report.read_text().replace("</body>", LOOK + "</body>"))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1280,900", "--virtual-time-budget=5000", "--dump-dom", watched.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    [found] = re.findall(r'data-seen="([^"]*)"', dom)
    seen = json.loads(unescape(found))
    assert seen["title"] == "training_20260101_000000"
    assert seen["images"] == [True]
    assert seen["charts"] == 8
    assert seen["requests"] == 0
    assert seen["width"] <= 1280
    for part in ("a red towel", "a blue rug", "é ☃", "seed_everything: 42  # <b>", "running"):
        assert part in seen["text"]


def test_a_run_may_be_given_by_its_directory(report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(report.parent), "--output", str(tmp_path / "page.html")])
    assert capsys.readouterr().out.strip().endswith("page.html")
    assert (tmp_path / "page.html").is_file()


def test_chart_places_points_on_its_axes() -> None:
    drawn = chart("loss", {"train": [(0.0, 0.0), (10.0, 5.0)], "without points": [], "bad": [(1.0, float("inf"))]})
    assert 'points="64.0,230.0 628.0,28.0"' in drawn
    assert "without points" not in drawn
    assert chart("empty", {"a": []}) == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 10], [0, 2, 4, 6, 8, 10]), ([3], [2.6, 2.8, 3.0, 3.2, 3.4]), ([-1, 7], [-2, 0, 2, 4, 6, 8])],
)
def test_ticks_are_round_and_enclose_the_values(values: list[float], expected: list[float]) -> None:
    assert ticks(values) == pytest.approx(expected)
