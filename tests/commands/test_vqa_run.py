"""A run of VQA as people watch it: its exact match in the monitor, the report and TensorBoard."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from lavic.commands import monitor, report
from lavic.runs.run_files import Run, find_run
from tests.training.command_line import ROOT, run

SHOWN = "val_exact_match"


def fit(tiny: Path, folder: Path) -> Run:
    """Four questions, over and over, until some are known by heart."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, colour in enumerate(("red", "blue", "red", "red")):
        Image.new("RGB", (60, 50), colour).save(folder / "images" / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "which colour", "answer": colour})
    (folder / "rows.json").write_text(json.dumps(rows))
    data = "--data.init_args."
    arguments = [
        "fit", f"--config={ROOT}/configs/vqa.yaml", f"--model.init_args.base.name={tiny}",
        *(f"{data}{split}_data={folder / 'rows.json'}" for split in ("train", "val")),
        f"{data}images_dir={folder / 'images'}", f"{data}num_workers=0", f"{data}batch_size=4",
        "--model.init_args.max_new_tokens=4", "--model.init_args.lr=0.005", "--model.init_args.trainable.language=full",
        "--model.init_args.scheduler=null",
        "--trainer.max_epochs=40", "--trainer.check_val_every_n_epoch=20", "--trainer.accumulate_grad_batches=1",
        "--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.log_every_n_steps=1",
        f"--trainer.default_root_dir={folder / 'out'}", f"--logs_dir={folder / 'out' / 'logs'}",
    ]  # fmt: skip
    run(arguments, folder / "out")
    return find_run(folder / "out" / "logs")


@pytest.fixture(scope="module")
def watched(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(tiny, tmp_path_factory.mktemp("watched") / "run")


def validations(of: Run) -> list[dict[str, Any]]:
    found = of.of("validation")
    assert len(found) == 2
    assert found[-1][SHOWN] > 0  # so that another number cannot pass for it
    return found


def test_the_monitor_shows_exact_match(watched: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "160")
        assert monitor.main(["--logs", str(watched.directory.parent), "--summary"]) == 0
    text = capsys.readouterr().out
    last = validations(watched)[-1]
    assert {metric["name"] for metric in watched.about["metrics"]} <= last.keys(), "a row of the monitor stays empty"
    best = max(event[SHOWN] for event in validations(watched))
    assert all(event["samples_per_second"] > 0 and event["tokens_per_second"] > 0 for event in watched.of("train"))
    assert re.search(rf"exact match +{last[SHOWN]:.4f} ", text), text
    assert re.search(rf"best exact match +{best:.4f} ", text), text
    assert re.search(rf"best adapter +step \d+, exact match {best:.4f}", " ".join(text.split())), text


def test_the_report_shows_exact_match_its_curve_and_the_questions(
    watched: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    report.main([str(watched.directory)])
    page = Path(capsys.readouterr().out.strip()).read_text()
    last, best = validations(watched)[-1], max(event[SHOWN] for event in validations(watched))
    assert f"<th>exact match</th><td>{last[SHOWN]:.4f}</td>" in page
    assert f"<th>best exact match</th><td>{best:.4f} at step" in page
    assert ">Exact match<" in page
    samples = unescape(page.partition("Validation images")[2].partition("Warnings and skipped")[0])
    assert "<th>question</th><td>which colour</td>" in samples
    assert "<th>generated</th>" in samples


def test_tensorboard_has_exact_match(watched: Run) -> None:
    events = EventAccumulator(str(watched.directory))
    events.Reload()
    assert [event.value for event in events.Scalars(SHOWN)] == pytest.approx([e[SHOWN] for e in validations(watched)])
