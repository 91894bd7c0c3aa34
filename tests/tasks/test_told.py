"""Every task tells how long it will take after its first step, and each part's learning rate where they differ."""

import json
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from lavic.commands import monitor, report
from lavic.runs.run_files import find_run
from tests.tasks.cases import CASES, batch, fit_arguments
from tests.training.command_line import run

PART = {"distillation": "projector", "instruction": "projector", "vqa": "projector", "recommendation": "language"}


@pytest.fixture(scope="module", params=CASES)
def task(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    options = CASES[request.param].prepare(tiny, tmp_path_factory.mktemp(request.param))
    if request.param == "vqa":
        options.append("--model.init_args.trainable.projector=lora")
    return request.param, [*options, "--trainer.max_epochs=1"]


def test_the_first_step_tells_when_the_last_ends(task: tuple[str, list[str]], tmp_path: Path) -> None:
    output = tmp_path / "out"
    said = run([*fit_arguments(task[1], output), *batch(4, 1), "--trainer.log_every_n_steps=10"], output)
    lines = [line for line in said.splitlines() if "The first step took" in line]
    total = find_run(output / "logs").about["total_steps"]
    assert len(lines) == 1
    assert re.search(
        rf"took \d+\.\d s; at that pace the last of {total} ends at \d{{4}}-\d\d-\d\d \d\d:\d\d, in ", lines[0]
    )
    event = find_run(output / "logs").last("first_step")
    assert event["step"] == 1
    assert event["seconds_left"] == pytest.approx((total - 1) * event["seconds"])


def test_a_part_with_its_own_rate_is_shown_beside_the_others(
    task: tuple[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, options = task
    output, own = tmp_path / "out", PART[name]
    rates = f"--model.init_args.part_lr={{{own}: 0.0001}}"
    said = run([*fit_arguments(options, output), *batch(4, 1), rates], output)
    event = find_run(output / "logs").last("train")
    others = {"distillation": "vision", "instruction": "language", "vqa": "language", "recommendation": None}[name]
    logs = output / "logs"
    run_id = find_run(logs).run_id
    scalars = EventAccumulator(str(logs / run_id)).Reload()
    monitor.main(["--logs", str(logs), "--summary"])
    shown = " ".join(capsys.readouterr().out.split())
    page = tmp_path / "page.html"
    report.main([run_id, "--logs", str(logs), "--output", str(page)])
    if others is None:  # one part alone is trained
        assert (event["lr"], event["lr_by_part"]) == (0.0001, None)
        assert "lr 1.00e-04" in said
        assert scalars.Scalars("lr")[-1].value == pytest.approx(0.0001)
        return
    assert event["lr_by_part"] == {others: 0.002, own: 0.0001}
    assert event["lr"] == 0.002  # of the parts without one of their own
    assert f"lr {others} 2.00e-03, {own} 1.00e-04" in said
    assert f"lr, {others} 2.00e-03" in shown
    assert f"lr, {own} 1.00e-04" in shown
    for part, rate in event["lr_by_part"].items():
        assert scalars.Scalars(f"lr_{part}")[-1].value == pytest.approx(rate)
        assert f">{part}</text>" in page.read_text()
    assert json.dumps(event)
