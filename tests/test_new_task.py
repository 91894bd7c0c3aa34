"""A task of one file outside `lavic/` has everything that LaViC's own have, without a line of `lavic/` for it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lavic.commands import monitor, report
from lavic.runs.run_files import find_run
from tests.training.command_line import ROOT, losses, run, validation

FILE = Path(__file__).parent / "new_task" / "brightness.py"
STEPS = 6  # two epochs of 11 samples, 4 a step


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven grey images to train on and five to validate with: neither divides by two processes."""
    folder, draw = tmp_path_factory.mktemp("grey"), np.random.default_rng(5)
    for split, count in (("train", 11), ("val", 5)):
        (folder / split).mkdir()
        for number in range(count):
            grey = (20, 235)[number % 2] + draw.integers(-15, 15, (60, 90, 3))
            Image.fromarray(grey.astype(np.uint8)).save(folder / split / f"{number:02d}.png")
    return folder


def arguments(command: str, tiny: Path, images: Path, output: Path, batch_size: int = 4) -> list[str]:
    return [
        command, "--model=tests.new_task.brightness.Brightness", "--data=tests.new_task.brightness.BrightnessData",
        f"--model.base.name={tiny}", "--model.lr=0.05", f"--data.images_dir={images}",
        f"--data.batch_size={batch_size}", "--trainer.max_epochs=2", "--trainer.accelerator=cpu",
        "--trainer.callbacks=[{class_path: lavic.training.best_adapter.BestAdapter}]",
        "--trainer.gradient_clip_val=1.0", "--trainer.log_every_n_steps=1", "--trainer.enable_model_summary=false",
        "--checkpoint.every_n_steps=1", f"--trainer.default_root_dir={output}", f"--logs_dir={output / 'logs'}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("brightness") / "out"
    run(arguments("fit", tiny, images, output), output)
    return output


def test_it_is_one_short_file_and_lavic_does_not_know_it() -> None:
    assert len(FILE.read_text().splitlines()) <= 120
    for path in [*(ROOT / "lavic").rglob("*.py"), *(ROOT / "crawl").rglob("*.py")]:
        assert "brightness" not in path.read_text(encoding="utf-8").lower(), path


def test_it_trains_and_validates(trained: Path) -> None:
    found = losses(trained)
    assert list(found) == list(range(1, STEPS + 1))
    assert found[STEPS] < found[1] - 0.05
    entry = validation(trained)
    assert set(entry) >= {"val_loss", "brightness_accuracy"}
    assert 0 <= entry["brightness_accuracy"] <= 1
    assert entry["samples"] == 5


def test_its_best_adapter_is_that_of_its_own_metric(trained: Path) -> None:
    folder = trained / "brightness_adapter_best"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    card = (folder / "README.md").read_text()
    assert "Bright or dark" in card
    assert "right words" in card
    assert all("multi_modal_projector" in name for name in load_file(folder / "adapter_model.safetensors"))
    events = [json.loads(line) for line in next((trained / "logs").glob("*/metrics.jsonl")).read_text().splitlines()]
    values = [event["brightness_accuracy"] for event in events if event["event"] == "validation"]
    saved = [event for event in events if event["event"] == "adapter"]
    better = [value for number, value in enumerate(values) if value > max(values[:number], default=-1)]
    assert [(event["metric"], event["value"]) for event in saved] == [("brightness_accuracy", v) for v in better]


def test_it_resumes_to_the_same_bits(tiny: Path, images: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = arguments("fit", tiny, images, output)
    run([*options, "--trainer.limit_val_batches=0", "--trainer.max_steps=2"], output)
    assert "Resuming from" in run([*options, "--resume"], output)
    assert losses(output) == losses(trained)
    whole, parts = (torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in (trained, output))
    assert all(torch.equal(whole[name], weights) for name, weights in parts.items())


def test_it_trains_under_ddp_as_on_one_process(tiny: Path, images: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(arguments("fit", tiny, images, output, batch_size=2), output, processes=2)
    assert losses(output) == pytest.approx(losses(trained), rel=1e-5)
    for name in ("val_loss", "brightness_accuracy", "samples"):
        assert validation(output)[name] == pytest.approx(validation(trained)[name], abs=1e-5), name


def test_a_run_with_other_images_is_not_resumed(tiny: Path, images: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run([*arguments("fit", tiny, images, output), "--trainer.max_steps=2"], output)
    fewer = tmp_path / "images"
    for path in sorted(images.rglob("*.png"))[1:]:
        (fewer / path.parent.name).mkdir(parents=True, exist_ok=True)
        (fewer / path.parent.name / path.name).write_bytes(path.read_bytes())
    said = run([*arguments("fit", tiny, fewer, output), "--resume"], output, status=2)
    assert "training data" in said


def test_the_monitor_and_the_report_show_its_metric(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value, logs = f"{validation(trained)['brightness_accuracy']:.1%}", ["--logs", str(trained / "logs")]
    about = find_run(trained / "logs").about
    assert about["task"] == "brightness"
    monitor.main([*logs, "--summary"])
    shown = capsys.readouterr().out
    assert "right words" in shown
    assert value in shown
    page = tmp_path / "page.html"
    report.main([about["run_id"], *logs, "--output", str(page)])
    assert "right words" in page.read_text()
    assert value in page.read_text()
