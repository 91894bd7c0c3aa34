"""Every command that loads a model x every way in which its files may not fit: told before weights are read."""

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaNextForConditionalGeneration, PreTrainedModel

from lavic import __main__
from lavic.model.adapters.directory import save_adapter
from lavic.model.parts import TrainableParts, place_adapters
from lavic.model.processor import load_processor
from tests.stage2_files import Stage2Files, write_stage2_files
from tests.tasks.cases import CASES, fit_arguments

ROOT = Path(__file__).parents[2]
PROCESSOR = "processor_config.json"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cut_smaller(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        images = content.get("image_processor", content)
        images["crop_size"], images["size"] = {"height": 14, "width": 14}, {"shortest_edge": 14}

    edit(next(folder.glob("*processor_config.json")), change)


def other_image_token(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(image_token_index=5, image_token_id=5))


def fewer_embeddings(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config["text_config"].update(vocab_size=50))


def other_width(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config["text_config"].update(intermediate_size=12))


def missing_shard(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = dict.fromkeys(weights, "model-00001-of-00002.safetensors")
    names[max(names)] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_weights_file(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def missing_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "linear_1.weight" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def other_patches(folder: Path) -> None:
    edit(next(folder.glob("processor_config.json")), lambda content: content.update(patch_size=5))


def other_strategy(folder: Path) -> None:
    edit(next(folder.glob("processor_config.json")), lambda c: c.update(vision_feature_select_strategy="full"))


def no_such_layer(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(vision_feature_layer=-99))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "images cut to another size": (cut_smaller, r"cuts images to 14 pixels, and its vision tower reads \d+"),
    "another image token": (other_image_token, r"<image> as token \d+, and its model expects 5"),
    "fewer embeddings than tokens": (fewer_embeddings, r"tokens up to number \d+, and its model embeddings for 50"),
    "patches of another size": (other_patches, r"has the patch_size 5, and its model \d+"),
    "another choice of features": (other_strategy, r"vision_feature_select_strategy full, and its model default"),
    "a layer that is not there": (no_such_layer, r"reads layer -99 of its vision tower, which has \d+"),
    "weights of another width": (other_width, r"do not fit its config\.json: .*12"),
    "a shard is missing": (missing_shard, r"lacks 1 of the 2 weight files .*model-00002-of-00002\.safetensors"),
    "a file is cut short": (cut_short, r"model\.safetensors is cut short"),
    "a pointer instead of weights": (no_weights_file, r"model\.safetensors is no safetensors file"),
    "a weight is missing": (missing_weight, r"lacks 1 of its architecture's weights, \S*linear_1\.weight"),
}
COMMANDS = [*(f"fit {task}" for task in CASES), "embed", "describe", "export", "chat"]


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage2Files:
    return write_stage2_files(tmp_path_factory.mktemp("stage2") / "files", tiny)


@pytest.fixture(scope="module")
def prepared(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Each task's options; stage 2's is done by the first look at the files, before its item store is asked for."""
    folder = tmp_path_factory.mktemp("cases")
    made = {task: case.prepare(tiny, folder / task) for task, case in CASES.items() if task != "recommendation"}
    return made


def arguments(
    command: str, checkpoint: Path, files: Stage2Files, prepared: dict[str, list[str]], output: Path
) -> list[str]:
    base = f"--model.init_args.base.name={checkpoint}"
    if command == "fit recommendation":
        return [*fit_arguments([f"--config={ROOT}/configs/recommend.yaml", *files.options()[1:]], output), base]
    if command.startswith("fit "):
        return [*fit_arguments(prepared[command.removeprefix("fit ")], output), base]
    if command == "embed":
        return ["embed", *files.options(), base]
    if command == "describe":
        images = [f"--images_dir={files.folder / 'images'}", f"--metadata={files.folder / 'items.json'}"]
        return ["describe", f"--config={ROOT}/configs/describe.yaml", f"--base.name={checkpoint}", *images]
    if command == "export":
        return ["export", "--adapter", str(files.distilled), "--base", str(checkpoint), "--out", str(output)]
    return ["web", "--chat_model", str(checkpoint), "--port", "0"]


def said_by(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a command that ends with status 2, having read no weights."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    monkeypatch.setattr(sys, "argv", ["lavic", *arguments])
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    capsys.readouterr()
    try:
        assert __main__.main() == 2
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    said = capsys.readouterr()
    assert not said.out
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said.err
    assert "Traceback" not in said.err
    return errors[0]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_does_not_fit_is_told_before_weights_are_read(
    command: str,
    fault: str,
    tiny: Path,
    files: Stage2Files,
    prepared: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage, said = FAULTS[fault]
    checkpoint = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    damage(checkpoint)
    asked = arguments(command, checkpoint, files, prepared, tmp_path / "out")
    sentence = said_by(asked, monkeypatch, capsys)
    assert re.search(said, sentence), sentence
    assert str(checkpoint) in sentence


def another_base(tiny: Path, folder: Path) -> Path:
    """A checkpoint of the same shapes, of which one matrix of the language model was trained on."""
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "layers.0.self_attn.q_proj" in name and "vision" not in name)
    weights[name] = weights[name] + 0.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


ADAPTED = [
    "fit distillation",
    "validate distillation",
    "test vqa",
    "predict vqa",
    "embed",
    "fit recommendation",
    "export",
    "chat",
]


@pytest.mark.parametrize("command", ADAPTED)
def test_an_adapter_of_another_base_is_refused_before_weights_are_read(
    command: str,
    tiny: Path,
    files: Stage2Files,
    prepared: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = another_base(tiny, tmp_path / "other")
    asked = arguments(re.sub("^(validate|test|predict) ", "fit ", command), other, files, prepared, tmp_path / "out")
    if command.endswith(("distillation", "vqa")):
        asked.append(f"--model.init_args.adapter={files.distilled}")
        asked[0] = command.partition(" ")[0]
    if command == "chat":
        asked += ["--chat_adapter", str(files.distilled)]
    sentence = said_by(asked, monkeypatch, capsys)
    assert f"{files.distilled} was trained on '{tiny}', and '{other}' has other weights" in sentence
    assert "any_base" in sentence


def test_the_same_weights_elsewhere_or_in_shards_are_the_same_base(
    tiny: Path, files: Stage2Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    moved = Path(shutil.copytree(tiny, tmp_path / "moved"))
    llava = LlavaNextForConditionalGeneration.from_pretrained(moved)
    (moved / "model.safetensors").unlink()
    llava.save_pretrained(moved, max_shard_size="300KB")
    assert len(list(moved.glob("*.safetensors"))) > 1
    export = ["lavic", "export", "--adapter", str(files.distilled), "--base", str(moved), "--dtype", "float32"]
    monkeypatch.setattr(sys, "argv", [*export, "--out", str(tmp_path / "exported")])
    assert __main__.main() == 0


def test_who_means_it_gets_it(tiny: Path, files: Stage2Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    other = another_base(tiny, tmp_path / "other")
    export = ["lavic", "export", "--adapter", str(files.distilled), "--base", str(other), "--dtype", "float32"]
    monkeypatch.setattr(sys, "argv", [*export, "--any_base", "--out", str(tmp_path / "exported")])
    assert __main__.main() == 0


def test_a_base_that_was_changed_in_place_is_another_one(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    adapted = place_adapters(LlavaNextForConditionalGeneration.from_pretrained(base), TrainableParts(), str(base))
    save_adapter(adapted, load_processor(str(base)), tmp_path / "adapter", "")
    weights = {name: weight + torch.ones(()) for name, weight in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    asked = ["export", "--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "out")]
    assert "whose weights have changed since" in said_by(asked, monkeypatch, capsys)


def test_a_projector_that_was_trained_alone_belongs_to_its_base(
    tiny: Path,
    prepared: dict[str, list[str]],
    files: Stage2Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = TrainableParts(vision="frozen", projector="full", language="frozen")
    aligned = place_adapters(LlavaNextForConditionalGeneration.from_pretrained(tiny), parts, str(tiny))
    save_adapter(aligned, load_processor(str(tiny)), tmp_path / "aligned", "")
    other = another_base(tiny, tmp_path / "other")
    asked = arguments("fit instruction", other, files, prepared, tmp_path / "out")
    asked += [f"--model.init_args.projector={tmp_path / 'aligned'}", "--model.init_args.trainable.projector=full"]
    assert "has other weights" in said_by(asked, monkeypatch, capsys)
