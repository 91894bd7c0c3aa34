"""Every shipped YAML file is accepted by the command line that it configures, without anything being loaded."""

from pathlib import Path

import pytest
from lightning.pytorch.strategies import DeepSpeedStrategy

from lavic.commands.fit import LavicCLI, Parser
from lavic.errors import UserError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
OVERLAYS = {  # set on top of another file
    "deepspeed_zero2.yaml": ["configs/distill.yaml"],
    "demo.yaml": ["configs/distill.yaml"],
    "demo_recommend.yaml": ["configs/recommend.yaml"],
    "fsdp2.yaml": ["configs/distill.yaml"],
}


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
        LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True, parser_class=Parser,
        auto_configure_optimizers=False, load_from_checkpoint_support=False, args=["fit", *args],
    )  # fmt: skip
    return cli.config["fit"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_is_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    below = [argument for file in OVERLAYS.get(path.name, []) for argument in ("--config", file)]
    config = parse(*below, "--config", str(path))
    assert config.model.class_path.startswith("lavic.tasks.")  # type: ignore[attr-defined]
    assert config.data.class_path.startswith("lavic.tasks.")  # type: ignore[attr-defined]


def test_deepspeeds_options_make_a_strategy_of_stage_2(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepspeed")
    monkeypatch.chdir(ROOT)
    config = parse("--config", "configs/distill.yaml", "--config", "configs/deepspeed_zero2.yaml")
    options = config.trainer.strategy.init_args  # type: ignore[attr-defined]
    strategy = DeepSpeedStrategy(**options.as_dict())
    assert strategy.config is not None
    assert strategy.config["zero_optimization"]["stage"] == 2
    assert strategy.exclude_frozen_parameters


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
    assert (model.lora.r, model.lora.alpha, model.lora.dropout, model.lora.targets) == (8, 32, 0.1, None)
    assert (model.lr, model.weight_decay, trainer.gradient_clip_val, trainer.max_epochs) == (5e-5, 1e-5, 1.0, 1)
    assert (data.max_length, data.inject, data.candidates, data.views) == (2048, True, "candidates_st", "five")
    assert (data.model_name, data.seed) == (model.base.name, 42)


def test_an_unknown_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "more.yaml").write_text("trainer: {max_epoch: 3}\n")
    with pytest.raises(UserError, match="max_epoch"):
        parse("--config", "configs/distill.yaml", "--config", str(tmp_path / "more.yaml"))
