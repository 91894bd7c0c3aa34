"""A run's files and flags mean the same to every command: each later one changes what it names, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavic.__main__ import main
from lavic.errors import UserError
from tests.training.command_line import ROOT

OF_EVERY_TASK = ("fit", "validate", "test", "predict", "plan")
OF_STAGE_2 = ("recommend", "embed", "web")
TASKS = ("align", "distill", "instruct", "recommend", "vqa")
OVERLAYS = sorted(path.stem for path in (ROOT / "configs/with").glob("*.yaml"))
PAIRS = [(command, task) for task in TASKS for command in ("fit", "plan")] + [(c, "recommend") for c in OF_STAGE_2]
NOT_FOR = {"local_lite": {"distill", "align"}, "t4_qlora": {"distill", "align"}, "cloud": {"distill", "align"}}
DEFAULTS_OF_FIT = {"use_distributed_sampler", "num_sanity_val_steps", "enable_model_summary", "log_every_n_steps"}
OWN = """
trainer: {default_root_dir: out_mine, max_epochs: 7}
checkpoint: {every_n_steps: 7}
early_stop: {patience: 3}
non_finite_steps: {stop_after: 4}
logs_dir: logs_mine
"""
ON_TOP = """
trainer: {enable_progress_bar: false}
checkpoint: {every_minutes: 3}
early_stop: {min_delta: 0.25}
"""

FLAGS = ("--trainer.max_epochs", "9", "--checkpoint.every_minutes=5")
Printed = Callable[..., dict[str, Any]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Printed:
    """What a command has read, by its own --print_config."""
    monkeypatch.chdir(ROOT)

    def run(command: str, *arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([command, *arguments, "--print_config"])
        out = capsys.readouterr()
        assert end.value.code in (0, None), out.err
        read: dict[str, Any] = yaml.safe_load(out.out)
        return read

    return run


@pytest.mark.parametrize("command", [*OF_EVERY_TASK, *OF_STAGE_2])
def test_a_file_changes_what_it_names_and_a_flag_comes_last(command: str, printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    (tmp_path / "on_top.yaml").write_text(ON_TOP)
    files = [part for name in ("own", "on_top") for part in ("--config", str(tmp_path / f"{name}.yaml"))]
    read = printed(
        command, "--config", "recommend", *files, "--trainer.max_epochs", "9", "--checkpoint.every_minutes=5"
    )
    trainer = read["trainer"]
    assert (trainer["default_root_dir"], trainer["max_epochs"]) == ("out_mine", 9)
    assert (trainer["enable_progress_bar"], trainer["gradient_clip_val"]) == (False, 1.0)
    assert (trainer["accumulate_grad_batches"], read["logs_dir"]) == (8, "logs_mine")
    assert read["checkpoint"] == {"every_n_steps": 7, "every_minutes": 5.0}
    assert (read["early_stop"]["patience"], read["early_stop"]["min_delta"]) == (3, 0.25)
    assert read["non_finite_steps"] == {"stop_after": 4}


@pytest.mark.parametrize(("command", "task"), PAIRS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_means_to_every_command_what_it_means_to_fit(
    command: str, task: str, overlay: str, printed: Printed
) -> None:
    files = ("--config", task, "--config", f"with/{overlay}")
    as_fit, alone, read = printed("fit", *files), printed(command, *files[:2]), printed(command, *files)
    on_top = yaml.safe_load((ROOT / f"configs/with/{overlay}.yaml").read_text())
    for section in ("trainer", "model", "data", "checkpoint"):
        for name, value in (read.get(section) or {}).items():
            if name in as_fit[section] and name not in DEFAULTS_OF_FIT:
                assert value == as_fit[section][name], (section, name)
    untouched = set(alone["trainer"]) - set(on_top.get("trainer", {}))
    assert {name: read["trainer"][name] for name in untouched} == {name: alone["trainer"][name] for name in untouched}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_that_is_not_for_every_task_says_so_first(overlay: str) -> None:
    first = (ROOT / f"configs/with/{overlay}.yaml").read_text().partition("\n")[0]
    named = {task for task in TASKS if task in first.partition("not for ")[2]}
    assert named == NOT_FOR.get(overlay, set())
    readme = (ROOT / "README.md").read_text().partition("`configs/with/`: ")[2].partition("\n\n")[0]
    for_any, _, for_some = readme.partition("not for distill and align")
    assert overlay in (for_some if overlay in NOT_FOR else for_any)


@pytest.mark.parametrize("command", ["plan", *OF_STAGE_2])
@pytest.mark.parametrize("wrong", ["trainer: {max_epoch: 3}", "checkpoint: {every: 3}", "early_stop: {patience: 0.5}"])
def test_what_fit_refuses_the_others_refuse(command: str, wrong: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "wrong.yaml").write_text(wrong + "\n")
    assert main([command, "--config", "recommend", "--config", str(tmp_path / "wrong.yaml")]) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert wrong.partition("{")[2].partition(":")[0] in said


def test_stage_2_trains_lora_on_the_language_model_alone() -> None:
    from lavic.model.loading import BaseModel
    from lavic.model.parts import Lora, TrainableParts
    from lavic.tasks.recommendation import Recommendation

    frozen = TrainableParts(vision="frozen", projector="frozen", language="lora", lora=Lora(r=3))
    assert Recommendation(BaseModel(), trainable=frozen).lora.r == 3
    assert Recommendation(BaseModel(), trainable=frozen, lora=Lora(r=5)).trainable.lora.r == 5  # an earlier file's name
    with pytest.raises(UserError, match="language model alone"):
        Recommendation(BaseModel(), trainable=TrainableParts(vision="lora", projector="frozen", language="lora"))
