"""Every shipped YAML file is accepted by the command line that it configures, without anything being loaded."""

from pathlib import Path
from typing import Any

import pytest

from lavic.commands.fit import LavicCLI, Parser
from lavic.commands.options import found_configs
from lavic.errors import UserError

ROOT = Path(__file__).parents[1]
OVERLAYS = {  # set on top of another file
    "demo": "distill",
    "demo_recommend": "recommend",
    "demo_vqa": "vqa",
    "demo_align": "align",
    "demo_instruct": "instruct",
}
OTHERS = {"describe"}  # options of another command than fit
TASKS = sorted({path.stem for path in (ROOT / "configs").glob("*.yaml")} - OVERLAYS.keys() - OTHERS)
WITH = sorted(path.stem for path in (ROOT / "configs" / "with").glob("*.yaml"))


def parse(*args: str) -> object:
    """The parsed options of `python -m lavic fit`; classes are not instantiated."""

    class ParseOnly(LavicCLI):
        def before_instantiate_classes(self) -> None:
            pass

        def instantiate_classes(self) -> None:
            pass

        def _run_subcommand(self, subcommand: str) -> None:
            pass

    from lightning.pytorch import LightningDataModule, LightningModule

    cli = ParseOnly(
        "fit", model_class=LightningModule, datamodule_class=LightningDataModule, subclass_mode_model=True,
        subclass_mode_data=True, parser_class=Parser, seed_everything_default=42,
        auto_configure_optimizers=False, load_from_checkpoint_support=False, args=found_configs(["fit", *args]),
    )  # fmt: skip
    return cli.config["fit"]


@pytest.mark.parametrize("names", [[task] for task in TASKS] + [[below, over] for over, below in OVERLAYS.items()])
def test_a_shipped_config_is_accepted(names: list[str]) -> None:
    config: Any = parse(*(part for name in names for part in ("--config", name)))
    assert config.model.class_path.startswith("lavic.tasks.")
    assert config.data.class_path.startswith("lavic.tasks.")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("overlay", WITH)
def test_every_overlay_goes_on_every_task(task: str, overlay: str) -> None:
    without, with_it = parse("--config", task), parse("--config", task, "--config", f"with/{overlay}")
    assert with_it != without


@pytest.mark.parametrize("overlay", WITH)
def test_an_unknown_key_on_top_of_an_overlay_is_refused(overlay: str, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("trainer: {max_epoch: 3}\n")
    with pytest.raises(UserError, match="max_epoch"):
        parse("--config", "distill", "--config", f"with/{overlay}", "--config", str(tmp_path / "more.yaml"))


def test_a_short_name_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert found_configs(["--config", "distill"]) == ["--config", str(ROOT / "configs/distill.yaml")]
    (tmp_path / "distill").write_text("seed_everything: 3\n")  # the user's own file of that name comes first
    assert found_configs(["--config", "distill"]) == ["--config", "distill"]


def test_distill_yaml_says_what_the_design_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = parse("--config", "configs/distill.yaml")
    model, data, trainer = config.model.init_args, config.data.init_args, config.trainer  # type: ignore[attr-defined]
    lora = model.trainable.lora
    assert (lora.r, lora.alpha, lora.dropout, lora.targets) == (8, 32, 0.1, None)
    assert (model.trainable.vision, model.trainable.projector, model.trainable.language) == ("lora", "lora", "frozen")
    assert (model.lr, model.weight_decay, trainer.gradient_clip_val) == (5e-5, 1e-5, 1.0)
    assert (data.batch_size, data.views, trainer.max_epochs, config.seed_everything) == (1, "five", 1, 42)  # type: ignore[attr-defined]


def test_recommend_yaml_says_what_the_design_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = parse("--config", "configs/recommend.yaml")
    model, data, trainer = config.model.init_args, config.data.init_args, config.trainer  # type: ignore[attr-defined]
    lora = model.trainable.lora
    assert (lora.r, lora.alpha, lora.dropout, lora.targets) == (8, 32, 0.1, None)
    assert (model.lr, model.weight_decay, trainer.gradient_clip_val, trainer.max_epochs) == (5e-5, 1e-5, 1.0, 1)
    assert (data.max_length, data.inject, data.candidates, data.views) == (2048, True, "candidates_st", "five")
    assert (data.model_name, data.seed) == (model.base.name, 42)


def test_an_unknown_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "more.yaml").write_text("trainer: {max_epoch: 3}\n")
    with pytest.raises(UserError, match="max_epoch"):
        parse("--config", "configs/distill.yaml", "--config", str(tmp_path / "more.yaml"))
