"""Adapters on the real configuration (no weights) and on the tiny model."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from lavic.errors import UserError
from lavic.model.adapters.directory import load_adapter, save_adapter
from lavic.model.adapters.saved_adapter import read_saved_adapter
from lavic.model.loading import BaseModel, build_on_meta, fit_embeddings, load_llava
from lavic.model.parts import (
    Lora,
    Short,
    TrainableParts,
    count_trainable,
    lora_config,
    lora_modules,
    place_adapters,
    short_parts,
    trained_parameters,
    unwrap,
)
from lavic.model.processor import load_processor
from lavic.model.unread_parameters import Entry

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
    read_saved_adapter(load_llava(BaseModel(str(tiny)), CPU), tmp_path / "adapter")
    config = load_llava(BaseModel(str(tiny)), CPU).config
    config.vision_config.intermediate_size *= 2
    with pytest.raises(UserError, match="made for another base model"):
        read_saved_adapter(type(unwrap(model))(config), tmp_path / "adapter")
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


def features(llava: LlavaNextForConditionalGeneration, entry: Entry) -> torch.Tensor:
    """What enters the language model of one image, read here as LaViC or LLaVA-1.6 reads it."""
    pixels = torch.randn(5, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    if entry == "cls":
        states = llava.model.vision_tower(pixels).last_hidden_state[:, 0]
        return llava.model.multi_modal_projector(states)  # type: ignore[no-any-return]
    sizes = torch.tensor([[500, 500]])
    return llava.model.get_image_features(pixels[None], sizes).pooler_output[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("entry", ["cls", "patch"])
@pytest.mark.parametrize("vision", ["lora", "full"])
def test_all_that_is_trained_gets_a_gradient_and_nothing_useful_is_left_out(
    tiny: Path, vision: str, entry: Entry
) -> None:
    """DDP waits for every trainable parameter's gradient."""
    parts = TrainableParts(vision=vision, projector="full", language="full")  # type: ignore[arg-type]
    model = place_adapters(load_llava(BaseModel(str(tiny)), CPU), parts, "x", entry=entry).train()
    llava = unwrap(model)
    visual = features(llava, entry)
    embeds = torch.cat([visual[None], llava.get_input_embeddings()(torch.arange(4, 9))[None]], dim=1)
    llava(inputs_embeds=embeds).logits.square().mean().backward()
    without = {name for name, p, _ in trained_parameters(model) if p.grad is None}
    assert without == set()
    if vision == "full":
        whole = load_llava(BaseModel(str(tiny)), CPU).requires_grad_(True)
        visual = features(whole, entry)
        embeds = torch.cat([visual[None], whole.get_input_embeddings()(torch.arange(4, 9))[None]], dim=1)
        whole(inputs_embeds=embeds).logits.square().mean().backward()
        useful = {name for name, p in whole.named_parameters() if p.grad is not None}
        assert {name for name, _, _ in trained_parameters(model)} == useful
        last = "model.vision_tower.encoder.layers.1.mlp.fc1.weight"
        assert (last in useful) == (entry == "cls")
        assert ("model.image_newline" in useful) == (entry == "patch")


SHORT = {
    "lora": ("frozen", "full", "lora"),
    "full": ("full", "full", "full"),
    "freeze_vision": ("frozen", "full", "full"),
    "projector": ("frozen", "full", "frozen"),
}


@pytest.mark.parametrize("name", SHORT)
def test_what_was_trained_is_saved_whole_and_loads_by_plain_libraries(tiny: Path, tmp_path: Path, name: Short) -> None:
    """The three lines of full_parts.py, and our own loading, give the logits of the model that was saved."""
    model = place_adapters(load_llava(BaseModel(str(tiny)), CPU), short_parts(name), str(tiny), entry="patch")
    assert short_parts(name).modes() == dict(zip(("vision", "projector", "language"), SHORT[name], strict=True))
    generator = torch.Generator().manual_seed(2)
    for _, parameter, _ in trained_parameters(model):
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    save_adapter(model, load_processor(str(tiny)), tmp_path / "a", "card")

    def logits(adapted: PeftModel | LlavaNextForConditionalGeneration) -> torch.Tensor:
        llava = adapted.eval().base_model.model if isinstance(adapted, PeftModel) else adapted.eval()
        with torch.no_grad():
            text = llava.get_input_embeddings()(torch.arange(4, 9))
            embeds = torch.cat([features(llava, "patch"), text])[None]
            return llava(inputs_embeds=embeds).logits  # type: ignore[no-any-return]

    wanted = logits(model)
    plain = LlavaNextForConditionalGeneration.from_pretrained(tiny)
    assert not torch.allclose(logits(plain), wanted, atol=1e-3)
    unknown = plain.load_state_dict(load_file(tmp_path / "a" / "full_parts.safetensors"), strict=False).unexpected_keys
    assert unknown == []
    if name == "lora":
        plain = PeftModel.from_pretrained(plain, str(tmp_path / "a"))
    torch.testing.assert_close(logits(plain), wanted, atol=1e-5, rtol=0)
    ours = load_adapter(load_llava(BaseModel(str(tiny)), CPU), tmp_path / "a", trainable=True, parts=short_parts(name))
    torch.testing.assert_close(logits(ours), wanted, atol=1e-5, rtol=0)
    again = {n: p.dtype for n, p, _ in trained_parameters(ours)}
    assert again == {n: torch.float32 for n, _, _ in trained_parameters(model)}


def test_a_full_part_is_held_once_in_float32(tiny: Path) -> None:
    llava = load_llava(BaseModel(str(tiny), dtype="bfloat16"), CPU)
    elements = sum(p.numel() for p in llava.parameters())
    parts = TrainableParts(vision="frozen", projector="full", language="full", embeddings=False)
    model = place_adapters(llava, parts, "x")
    assert sum(p.numel() for p in model.parameters()) == elements
    dtypes = {(part, p.dtype) for _, p, part in trained_parameters(model)}
    assert dtypes == {("projector", torch.float32), ("language", torch.float32)}
    names = {name for name, _, _ in trained_parameters(model)}
    assert names.isdisjoint({"lm_head.weight", "model.language_model.embed_tokens.weight"})
    assert llava.lm_head.weight.dtype == torch.bfloat16


def test_nothing_or_four_bits_cannot_be_trained(tiny: Path) -> None:
    with pytest.raises(UserError, match="set at least one to lora or full"):
        TrainableParts("frozen", "frozen", "frozen")
    with pytest.raises(UserError, match="'qlora' is no way to train"):
        short_parts("qlora")  # type: ignore[arg-type]
    pytest.importorskip("bitsandbytes")
    llava = load_llava(BaseModel(str(tiny), quantization="nf4"), CPU)
    with pytest.raises(UserError, match="in 4 bits and cannot be trained in full"):
        place_adapters(llava, short_parts("full"), "x")


def test_an_older_adapter_s_modules_to_save_become_a_full_part(tiny: Path, tmp_path: Path) -> None:
    """What PEFT's `modules_to_save` wrote is trained where it stands, not in a second copy."""
    llava = load_llava(BaseModel(str(tiny)), CPU)
    config = lora_config(llava, TrainableParts(projector="full"))
    config.modules_to_save = ["multi_modal_projector"]
    peft = get_peft_model(llava, config)
    for name, parameter in peft.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    peft.save_pretrained(tmp_path / "a")
    with torch.no_grad():
        wanted = features(peft.eval().base_model.model, "cls")
    model = load_adapter(load_llava(BaseModel(str(tiny)), CPU), tmp_path / "a", trainable=True)
    with torch.no_grad():
        torch.testing.assert_close(features(unwrap(model).eval(), "cls"), wanted)
    assert count_trainable(model) == count_trainable(peft)
    assert not any("modules_to_save" in name for name, _ in model.named_parameters())
