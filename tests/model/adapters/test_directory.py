"""Adapters on disk: older names, files that are not whole, and adapters of another kind than asked for."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavic.errors import UserError
from lavic.model.adapters.directory import load_adapter, save_adapter
from lavic.model.adapters.saved_adapter import read_saved_adapter
from lavic.model.adapters.stacking import stack_adapters
from lavic.model.loading import BaseModel, Llava, load_llava
from lavic.model.parts import Lora, TrainableParts, place_adapters, unwrap
from lavic.model.processor import load_processor

CPU = torch.device("cpu")
WEIGHTS = "adapter_model.safetensors"
VISION = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "linear_1", "linear_2"]
LANGUAGE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base(tiny: Path) -> Llava:
    return load_llava(BaseModel(str(tiny)), CPU)


def saved(tiny: Path, folder: Path, parts: TrainableParts, task: str | None = None) -> Path:
    """An adapter whose weights, B included, are random."""
    model = place_adapters(base(tiny), parts, str(tiny))
    for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(number))
    save_adapter(model, load_processor(str(tiny)), folder, "card", task=task)
    return folder


def rename(folder: Path, new: Callable[[str], str], targets: list[str] | None) -> None:
    """As another release would have written it: other names, and a target list without a root; no lavic.json."""
    weights = load_file(folder / WEIGHTS)
    save_file({new(name): value for name, value in weights.items()}, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = targets or config["target_modules"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "lavic.json").unlink()


def before_4_52(name: str) -> str:
    name = name.replace("base_model.model.model.language_model.", "base_model.model.language_model.model.")
    return name.replace("base_model.model.model.", "base_model.model.")


def before_5(name: str) -> str:
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def of_llava_itself(name: str) -> str:
    name = name.replace("model.model.language_model.", "model.model.").replace("linear_1", "0").replace("linear_2", "2")
    return name.replace("multi_modal_projector", "mm_projector").replace(
        "vision_tower.", "vision_tower.vision_tower.vision_model."
    )


def adapter_weights(model: PeftModel | Llava) -> dict[str, Tensor]:
    return {name: p for name, p in unwrap(model).named_parameters() if ".lora_" in name}


STAGE1 = TrainableParts()
TUNED = TrainableParts(vision="frozen", projector="lora", language="lora", lora=Lora(r=3))


@pytest.mark.parametrize("targets", ["pattern", "list"])
@pytest.mark.parametrize("renaming", [before_4_52, before_5, of_llava_itself, lambda n: before_5(before_4_52(n))])
@pytest.mark.parametrize("parts", [STAGE1, TUNED], ids=["stage 1", "language"])
def test_an_adapter_with_older_names_loads_as_the_same(
    tiny: Path, tmp_path: Path, parts: TrainableParts, renaming: Callable[[str], str], targets: str
) -> None:
    today = saved(tiny, tmp_path / "today", parts)
    older = saved(tiny, tmp_path / "older", parts)
    rename(older, renaming, None if targets == "pattern" else (VISION if parts is STAGE1 else LANGUAGE + VISION))
    wanted = adapter_weights(load_adapter(base(tiny), today, trainable=True))
    model = load_adapter(base(tiny), older, trainable=True)
    given = adapter_weights(model)
    assert given.keys() == wanted.keys()
    assert all(torch.equal(given[name], wanted[name]) for name in wanted)
    save_adapter(model, load_processor(str(tiny)), tmp_path / "again", "card")
    read_saved_adapter(base(tiny), tmp_path / "again")  # what is written then has today's names
    plain = PeftModel.from_pretrained(base(tiny), str(tmp_path / "again"))
    assert all(torch.equal(p, wanted[name]) for name, p in adapter_weights(plain).items())


def test_names_of_no_release_are_not_called_another_base(tiny: Path, tmp_path: Path) -> None:
    folder = saved(tiny, tmp_path / "a", STAGE1)
    rename(folder, lambda name: name.replace("vision_tower", "image_encoder"), None)
    with pytest.raises(UserError, match=r"image_encoder.*under no name that this or an older release") as error:
        read_saved_adapter(base(tiny), folder)
    assert "another base" not in str(error.value)


def test_two_names_for_one_module_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(tiny, tmp_path / "a", STAGE1)
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "vision_tower" in name and "lora_A" in name)
    save_file({**weights, before_4_52(name): weights[name].clone()}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(UserError, match="under no name"):
        read_saved_adapter(base(tiny), folder)


@pytest.mark.parametrize("targets", ["pattern", "list"])
def test_a_missing_weight_is_not_taken_for_an_older_form(tiny: Path, tmp_path: Path, targets: str) -> None:
    folder = saved(tiny, tmp_path / "a", STAGE1)
    rename(folder, str, None if targets == "pattern" else VISION)
    weights = load_file(folder / WEIGHTS)
    gone = next(name.partition(".lora_")[0] for name in weights if "vision_tower" in name)
    left = {name: w for name, w in weights.items() if not name.startswith(gone)}
    save_file(left, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(UserError, match="not whole: it has no weights for 1 modules"):
        read_saved_adapter(base(tiny), folder)


@pytest.mark.parametrize("file", [WEIGHTS, "adapter_config.json", "lavic.json", "full_parts.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_one_sentence(tiny: Path, tmp_path: Path, file: str, damage: str) -> None:
    folder = saved(tiny, tmp_path / "a", TrainableParts(projector="full"))
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"[1, 2]"}[damage])
    with pytest.raises(UserError, match=r"cannot be read") as error:
        load_adapter(base(tiny), folder, trainable=False)
    assert "\n" not in str(error.value)


def test_another_kind_of_peft_adapter_is_named(tiny: Path, tmp_path: Path) -> None:
    other = get_peft_model(base(tiny), IA3Config(target_modules=["fc1"], feedforward_modules=["fc1"]))
    other.save_pretrained(tmp_path / "ia3")
    with pytest.raises(UserError, match="kind IA3, not LORA"):
        read_saved_adapter(base(tiny), tmp_path / "ia3")


LANGUAGE_LORA = TrainableParts(vision="frozen", projector="frozen", language="lora")
INSTRUCT = TrainableParts(vision="frozen", projector="full", language="lora")


@pytest.mark.parametrize("known", [True, False], ids=["lavic.json", "by its weights"])
def test_an_adapter_of_another_stage_is_refused(tiny: Path, tmp_path: Path, known: bool) -> None:
    first = saved(tiny, tmp_path / "first", STAGE1, "distillation" if known else None)
    second = saved(tiny, tmp_path / "second", LANGUAGE_LORA, "recommendation" if known else None)
    arguments = (Lora(), str(tiny), 0)
    for distilled, recommendation in ((second, None), (None, first), (second, first)):
        with pytest.raises(UserError, match=r"is asked for here"):
            stack_adapters(base(tiny), distilled, recommendation, *arguments)
    with pytest.raises(UserError, match=r"distillation.* is asked for here"):
        load_adapter(base(tiny), second, trainable=True, task="distillation")
    assert set(stack_adapters(base(tiny), first, second, *arguments).peft_config) == {"distilled", "recommendation"}


def test_an_instruct_adapter_is_no_stage_2_s(tiny: Path, tmp_path: Path) -> None:
    instruct = saved(tiny, tmp_path / "instruct", INSTRUCT, "instruction")
    for distilled, recommendation in ((instruct, None), (None, instruct)):
        with pytest.raises(UserError, match="trained by the task instruction"):
            stack_adapters(base(tiny), distilled, recommendation, Lora(), str(tiny), 0)
    (instruct / "lavic.json").unlink()
    with pytest.raises(UserError, match="language and projector part"):
        stack_adapters(base(tiny), None, instruct, Lora(), str(tiny), 0)


def test_other_parts_than_asked_for_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(tiny, tmp_path / "a", STAGE1, "distillation")
    load_adapter(base(tiny), folder, trainable=True, parts=TrainableParts())
    with pytest.raises(UserError, match="with vision: lora, projector: lora, and this run asks for vision: lora;"):
        load_adapter(base(tiny), folder, trainable=True, parts=TrainableParts(projector="frozen"))


@pytest.mark.parametrize("umask", [0o022, 0o007, 0o077])
def test_files_have_the_mode_that_the_umask_says(tiny: Path, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = saved(tiny, tmp_path / "a", INSTRUCT)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {WEIGHTS, "full_parts.safetensors", "adapter_config.json", "tokenizer.json"} <= modes.keys()
    assert set(modes.values()) == {0o666 & ~umask}
