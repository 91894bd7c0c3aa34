"""A user's mistake: exit status 2 and one sentence that names the thing and its value; never a traceback."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, LlavaNextForConditionalGeneration

from lavic import __main__
from lavic.model.adapters.directory import save_adapter
from lavic.model.loading import fit_embeddings
from lavic.model.parts import Lora, TrainableParts, place_adapters
from lavic.model.processor import load_processor
from tests.conftest import Described

ROOT = Path(__file__).parents[2]
MODEL, DATA = "--model.init_args.", "--data.init_args."
Lavic = Callable[..., str]


@pytest.fixture
def good(tiny: Path, described: Described, tmp_path: Path) -> list[str]:
    """Arguments with which `fit` would run."""
    return [
        "--config", "configs/distill.yaml", f"{MODEL}base.name={tiny}", *described.flags(), f"{DATA}num_workers=0",
        "--trainer.accelerator=cpu", "--trainer.max_steps=1", "--trainer.limit_val_batches=0",
        f"--trainer.default_root_dir={tmp_path / 'out'}", f"--logs_dir={tmp_path / 'logs'}",
    ]  # fmt: skip


@pytest.fixture
def mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Lavic]:
    """`mistake(*arguments)` runs `python -m lavic` in this process and returns the one sentence."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LAVIC_RUN_ID", "training_20260101_000000")

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["lavic", *map(str, arguments)])
        capsys.readouterr()
        assert __main__.main() == 2
        return the_sentence(*capsys.readouterr())

    yield run
    root.handlers[:] = before
    root.setLevel(level)


def the_sentence(out: str, err: str) -> str:
    """The one line that begins with `error: `: the last one, and but for the log's lines the only one."""
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if not re.search(r"(^|\s)INFO\b", line)]
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0]
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("deepspeed", r"deepspeed divides gradients .* twice.* configs/with/zero2.yaml"),
        ("deepspeed_stage_3_offload", r"deepspeed_stage_3_offload .* configs/with/fsdp2.yaml"),
        ("lightning.pytorch.strategies.DeepSpeedStrategy", r"strategies.DeepSpeedStrategy .* configs/with/zero2.yaml"),
    ],
)
def test_deepspeed_as_lightning_has_it_is_refused(good: list[str], mistake: Lavic, strategy: str, said: str) -> None:
    assert re.search(said, mistake("fit", *good, f"--trainer.strategy={strategy}"))


def test_zero_without_its_package_or_for_a_test(
    good: list[str], mistake: Lavic, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = (*good, "--config", "configs/with/zero2.yaml")
    assert "--trainer.strategy ddp to validate" in mistake("validate", *zero)
    monkeypatch.setattr("lavic.training.strategies.find_spec", lambda name: None)
    assert "`pip install deepspeed`" in mistake("fit", *zero)


@pytest.fixture
def other_base(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """Adapters of LLaVA-NeXTs that differ from the tiny one."""

    def make(**vision: int) -> Path:
        config = LlavaNextForConditionalGeneration.from_pretrained(tiny).config
        for name, value in vision.items():
            setattr(config.vision_config, name, value)
        llava = LlavaNextForConditionalGeneration(config)
        processor = load_processor(str(tiny))
        fit_embeddings(llava, len(processor.tokenizer))
        model = place_adapters(llava, TrainableParts(lora=Lora(r=2)), "owner/another-llava")
        save_adapter(model, processor, tmp_path / "adapter", "")
        return tmp_path / "adapter"

    return make


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        (f"{DATA}train_data", "/nowhere/item2meta.json", "/nowhere/item2meta.json"),
        (f"{DATA}val_data", "/nowhere/item2meta.jsonl", "/nowhere/item2meta.jsonl"),
        (f"{DATA}train_images_dir", "/nowhere/images", "/nowhere/images"),
        (f"{MODEL}base.name", "/nowhere/llava", "/nowhere/llava"),
        (f"{MODEL}adapter", "/nowhere/adapter", "/nowhere/adapter"),
        ("--config", "/nowhere/distill.yaml", "/nowhere/distill.yaml"),
        (f"{MODEL}lr", "abc", "lr"),
        (f"{MODEL}lr", "abc", "abc"),
        (f"{MODEL}lr", "-1", "-1"),
        (f"{DATA}batch_size", "0", "batch_size is 0"),
        (f"{DATA}batch_size", "two", "two"),
        (f"{DATA}max_samples", "0", "max_samples is 0"),
        (f"{DATA}num_workers", "-1", "num_workers is -1"),
        (f"{DATA}views", "six", "six"),
        (f"{MODEL}base.dtype", "float8", "float8"),
        (f"{MODEL}trainable.vision", "some", "some"),
        (f"{MODEL}trainable.lora.r", "0", "lora.r is 0"),
        (f"{MODEL}trainable.lora.targets", '["no_proj"]', "no_proj"),
        ("--trainer.max_epochs", "many", "many"),
        ("--learning_rate", "1", "learning_rate"),
        (f"{MODEL}learning_rate", "1", "learning_rate"),
        ("--trainer.accelerator", "abacus", "abacus"),
    ],
)
def test_a_wrong_flag_or_value(mistake: Lavic, good: list[str], flag: str, value: str, named: str) -> None:
    assert named in mistake("fit", *good, f"{flag}={value}")


@pytest.mark.parametrize(
    ("yaml", "named"),
    [
        ("trainer:\n  max_epoch: 3\n", "max_epoch"),
        ("model:\n  class_path: lavic.tasks.distillation.Distillation\n  init_args:\n    rate: 3\n", "rate"),
        ("model:\n  class_path: lavic.tasks.distillation.Nothing\n", "lavic.tasks.distillation.Nothing"),
        ("trainer: [1\n", "broken.yaml"),
    ],
)
def test_a_wrong_yaml_file(mistake: Lavic, good: list[str], tmp_path: Path, yaml: str, named: str) -> None:
    (tmp_path / "broken.yaml").write_text(yaml)
    assert named in mistake("fit", *good, "--config", tmp_path / "broken.yaml")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--learning_rate", "1"], "--learning_rate"),
        (["--batch_size"], "--batch_size"),
        (["--batch_size", "0"], "batch_size is 0"),
        (["--train_data", "/nowhere/x.json"], "/nowhere/x.json"),
        (["train.json"], "train.json"),
    ],
)
def test_a_wrong_short_flag(
    mistake: Lavic, tiny: Path, described: Described, tmp_path: Path, arguments: list[str], named: str
) -> None:
    folder = described.folder
    good = {
        "--model_name": tiny, "--train_data": folder / "item2meta_train.json",
        "--val_data": folder / "item2meta_valid.jsonl", "--train_images_dir": folder / "train_images",
        "--val_images_dir": folder / "valid_images", "--output_dir": tmp_path / "out", "--logs_dir": tmp_path / "logs",
        "--accelerator": "cpu",
    }  # fmt: skip
    assert named in mistake("train", *(part for pair in good.items() for part in pair), *arguments)


def test_an_unknown_command(mistake: Lavic) -> None:
    assert "'fitt' is no command" in mistake("fitt")


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("meta.jsonl", '{"title": "a"}\n\n{"title": \n', "line 3"),
        ("meta.json", '{\n"B1": {"title": "a"},\n"B2": }\n', "line 3"),
        ("meta.json", "[]", "list"),
        ("meta.csv", "title,image\n", ".csv"),
        ("meta.jsonl", "", "No item was found"),
        ("meta.jsonl", '{"title": "a", "image_name": "no.jpg", "image_description_llava_cleaned": "b"}\n', "missing"),
    ],
)
def test_metadata_that_cannot_be_used(
    mistake: Lavic, good: list[str], tmp_path: Path, name: str, text: str, named: str
) -> None:
    (tmp_path / name).write_text(text)
    sentence = mistake("fit", *good, f"{DATA}train_data={tmp_path / name}")
    assert named in sentence
    assert str(tmp_path / name) in sentence


def test_a_checkpoint_of_another_architecture(mistake: Lavic, good: list[str], tiny: Path, tmp_path: Path) -> None:
    bert = tmp_path / "bert"
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8).save_pretrained(bert)
    assert str(bert) in mistake("fit", *good, f"{MODEL}base.name={bert}")
    for file in tiny.iterdir():  # with a processor that would do
        if file.name != "config.json":
            shutil.copy(file, bert)
    sentence = mistake("fit", *good, f"{MODEL}base.name={bert}")
    assert str(bert) in sentence
    assert "bert checkpoint, not llava_next" in sentence


@pytest.mark.parametrize("fault", ["a weight is missing", "cut short", "other shape", "no config", "no tokenizer"])
def test_a_damaged_checkpoint(mistake: Lavic, good: list[str], tiny: Path, tmp_path: Path, fault: str) -> None:
    damaged = shutil.copytree(tiny, tmp_path / "damaged")
    file = damaged / "model.safetensors"
    weights = load_file(file)
    if fault == "cut short":
        file.write_bytes(file.read_bytes()[:5000])
    elif fault == "no config":
        (damaged / "config.json").write_text("{")
    elif fault == "no tokenizer":
        (damaged / "tokenizer.json").unlink()
    else:
        name = next(name for name in weights if name.endswith("linear_1.weight"))
        weights[name] = torch.zeros(3, 3)
        if fault == "a weight is missing":
            del weights[name]
        save_file(weights, file, metadata={"format": "pt"})
    assert str(damaged) in mistake("fit", *good, f"{MODEL}base.name={damaged}")


@pytest.mark.parametrize("vision", [{"hidden_size": 64}, {"num_hidden_layers": 3}, {"num_hidden_layers": 1}])
def test_an_adapter_for_another_base(
    mistake: Lavic, good: list[str], other_base: Callable[..., Path], vision: dict[str, int]
) -> None:
    adapter = other_base(**vision)
    for command in ("fit", "validate"):
        arguments = [a for a in good if command == "fit" or "max_steps" not in a]
        sentence = mistake(command, *arguments, f"{MODEL}adapter={adapter}")
        assert str(adapter) in sentence
        assert "owner/another-llava" in sentence


def test_a_folder_without_an_adapter(mistake: Lavic, good: list[str], tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert str(tmp_path / "nothing") in mistake("fit", *good, f"{MODEL}adapter={tmp_path / 'nothing'}")


def test_an_adapter_cut_short(mistake: Lavic, good: list[str], other_base: Callable[..., Path]) -> None:
    adapter = other_base()
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    assert str(adapter) in mistake("fit", *good, f"{MODEL}adapter={adapter}")


@pytest.mark.parametrize("flag", ["--trainer.default_root_dir", "--logs_dir", f"{DATA}cache_dir"])
def test_an_output_directory_that_cannot_be_written(mistake: Lavic, good: list[str], tmp_path: Path, flag: str) -> None:
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in mistake("fit", *good, f"{flag}={tmp_path / 'file' / 'folder'}")


def test_a_broken_checkpoint_to_resume(mistake: Lavic, good: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "last.ckpt").write_bytes(b"PK half")
    assert str(tmp_path / "out" / "last.ckpt") in mistake("fit", *good, "--resume")


@pytest.mark.slow
def test_the_process_exits_with_status_2(good: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "lavic", "fit", *good, f"{DATA}train_data=/nowhere/meta.json"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 2
    assert "/nowhere/meta.json" in the_sentence(run.stdout, run.stderr)


@pytest.mark.slow
def test_a_workers_error_is_one_sentence_too(good: list[str], described: Described, tmp_path: Path) -> None:
    """An image that breaks between the check and its reading, in a loader's worker process."""
    data = shutil.copytree(described.folder, tmp_path / "data")
    flags = [flag.replace(str(described.folder), str(data)) for flag in good]
    program = (
        "import sys\n"
        "from lavic import __main__\n"
        "from lavic.catalogue import image_checks\n"
        "from lavic.catalogue.images import BrokenImage\n"
        "def broken(path): raise BrokenImage('image missing')\n"
        "image_checks.open_image = broken\n"
        "sys.exit(__main__.main())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "fit", *flags, f"{DATA}num_workers=1"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    assert str(data / "train_images") in the_sentence(run.stdout, run.stderr)


def test_the_arguments_themselves_are_good(good: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise the tests above could fail for another reason than the one they give."""
    root = logging.getLogger()
    before = root.handlers[:]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["lavic", "fit", *good])
    assert __main__.main() == 0
    root.handlers[:] = before
    [run] = (tmp_path / "logs").glob("*/metrics.jsonl")
    assert json.loads(run.read_text().splitlines()[-1])["status"] == "finished"
