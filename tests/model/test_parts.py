"""Adapters on the real configuration (no weights) and on the tiny model."""

from pathlib import Path

import pytest
import torch
from transformers import LlavaNextConfig

from lavic.errors import UserError
from lavic.model.adapters.directory import check_adapter, load_adapter, save_adapter
from lavic.model.loading import BaseModel, build_on_meta, fit_embeddings, load_llava
from lavic.model.parts import Lora, TrainableParts, count_trainable, lora_modules, place_adapters, unwrap
from lavic.model.processor import load_processor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def real_config() -> LlavaNextConfig:
    """llava-hf/llava-v1.6-mistral-7b-hf."""
    text = {
        "model_type": "mistral", "vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": None,
    }  # fmt: skip
    return LlavaNextConfig(text_config=text)


def test_the_real_models_adapter_has_146_modules_and_3645440_parameters(real_config: LlavaNextConfig) -> None:
    model = place_adapters(build_on_meta(real_config), TrainableParts(), "base")
    assert len(lora_modules(model)) == 146
    assert count_trainable(model) == 3_645_440
    assert {p.device.type for p in model.parameters()} == {"meta"}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name and ("vision_tower" in name or "projector" in name) for name in trained)
    assert not any("language_model" in name or "lm_head" in name for name in trained)


def test_the_real_models_placeholders_take_free_rows(real_config: LlavaNextConfig) -> None:
    llava = build_on_meta(real_config)
    fit_embeddings(llava, 32_002 + 5)
    assert llava.get_input_embeddings().weight.shape[0] == 32_064
    assert llava.lm_head.weight.shape[0] == 32_064


def test_the_matrix_grows_where_rows_run_out(tiny: Path) -> None:
    llava = load_llava(BaseModel(str(tiny)), CPU)
    rows = llava.get_input_embeddings().weight.shape[0]
    fit_embeddings(llava, rows + 3)
    assert llava.get_input_embeddings().weight.shape[0] == llava.lm_head.weight.shape[0] == rows + 3
    assert not any(p.requires_grad for p in llava.parameters())


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (TrainableParts(vision="lora", projector="frozen"), {"vision_tower"}),
        (TrainableParts(vision="frozen", projector="frozen", language="lora"), {"language_model"}),
        (TrainableParts(vision="lora", projector="full"), {"vision_tower", "multi_modal_projector"}),
    ],
)
def test_exactly_the_parts_asked_for_are_trainable(tiny: Path, parts: TrainableParts, named: set[str]) -> None:
    model = place_adapters(load_llava(BaseModel(str(tiny)), CPU), parts, str(tiny))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    modules = ("vision_tower", "multi_modal_projector", "language_model", "lm_head")
    assert {module for module in modules for name in trained if module in name} == named
    whole = {name for name in trained if "lora_" not in name}
    assert {module for module in modules for name in whole if module in name} == set(parts.in_mode("full"))


def test_lora_is_float32_over_bfloat16_and_seeded(tiny: Path) -> None:
    models = [
        place_adapters(load_llava(BaseModel(str(tiny), dtype="bfloat16"), CPU), TrainableParts(), "x", seed)
        for seed in (1, 1, 2)
    ]
    weights = [{n: p for n, p in model.named_parameters() if p.requires_grad} for model in models]
    assert {p.dtype for p in weights[0].values()} == {torch.float32}
    assert unwrap(models[0]).dtype == torch.bfloat16
    assert all(torch.equal(p, weights[1][n]) for n, p in weights[0].items())
    assert not all(torch.equal(p, weights[2][n]) for n, p in weights[0].items())


def test_a_target_that_matches_nothing_is_an_error_that_lists_what_there_is(tiny: Path) -> None:
    llava = load_llava(BaseModel(str(tiny)), CPU)
    with pytest.raises(UserError, match=r"'gate_proj' matches no Linear of vision_tower.*fc1"):
        place_adapters(llava, TrainableParts(lora=Lora(targets=["q_proj", "gate_proj"])), "x")


def test_an_adapter_of_another_base_is_refused(tiny: Path, tmp_path: Path) -> None:
    processor = load_processor(str(tiny))
    model = place_adapters(load_llava(BaseModel(str(tiny)), CPU), TrainableParts(), str(tiny))
    save_adapter(model, processor, tmp_path / "adapter", "card")
    check_adapter(load_llava(BaseModel(str(tiny)), CPU), tmp_path / "adapter")
    config = load_llava(BaseModel(str(tiny)), CPU).config
    config.vision_config.intermediate_size *= 2
    with pytest.raises(UserError, match="made for another base model"):
        check_adapter(type(unwrap(model))(config), tmp_path / "adapter")
    with pytest.raises(UserError, match="holds no adapter"):
        load_adapter(unwrap(model), tmp_path, trainable=False)


def test_saving_replaces_the_directory_whole(tiny: Path, tmp_path: Path) -> None:
    processor, folder = load_processor(str(tiny)), tmp_path / "adapter"
    model = place_adapters(load_llava(BaseModel(str(tiny)), CPU), TrainableParts(), str(tiny))
    save_adapter(model, processor, folder, "first")
    (folder / "left_over").touch()
    save_adapter(model, processor, folder, "second")
    assert (folder / "README.md").read_text() == "second"
    assert not (folder / "left_over").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
