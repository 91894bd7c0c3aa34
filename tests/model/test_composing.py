"""LLaVAs composed of toy towers and toy language models, compared with what they were made of."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionModel,
    Gemma2Config,
    GPT2Config,
    OPTConfig,
    PretrainedConfig,
)

from lavic.__main__ import main
from lavic.errors import UserError
from lavic.model.composing import Architecture, compose
from tests.model.building_blocks import FAMILIES, SHAPE, language_model, other_language_model, vision_tower, without

TEXT = "The quick brown <fox> jumps over 12 lazy dogs."


def text_logits(model: torch.nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ["llava", "llava_next"])
@pytest.mark.parametrize("family", FAMILIES)
def test_text_logits_are_the_language_model_s_bit_for_bit(
    tmp_path: Path, clip: Path, tokenizers: Path, family: str, architecture: Architecture
) -> None:
    if architecture == "llava_next" and family not in ("llama", "tied"):
        pytest.skip("as the other architecture")
    source = language_model(tmp_path / "lm", family, tokenizers)
    made = compose(str(clip), str(source), tmp_path / "out", architecture)
    lm = AutoModelForCausalLM.from_pretrained(source)
    llava = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    ids = processor.tokenizer(TEXT, return_tensors="pt").input_ids
    old_rows = lm.get_input_embeddings().weight.shape[0]
    assert made.image_token_id not in ids
    assert torch.equal(text_logits(llava, ids)[..., :old_rows], text_logits(lm, ids))
    rows = llava.get_input_embeddings().weight
    tied = FAMILIES[family][2].get("tie_word_embeddings", False)
    assert (rows is llava.lm_head.weight) == tied
    if family == "qwen2":
        assert (made.image_token_id, len(rows)) == (151646, 151936)
        assert llava.generation_config.eos_token_id == [151645, 151643]
        assert llava.generation_config.pad_token_id == 151643
    else:
        assert (made.image_token_id, len(rows)) == (32000, 32001)
        source_mean = lm.get_input_embeddings().weight.mean(dim=0)
        torch.testing.assert_close(rows[-1], source_mean, atol=1e-3, rtol=0)
        torch.testing.assert_close(llava.lm_head.weight[-1], lm.lm_head.weight.mean(dim=0), atol=1e-3, rtol=0)
        assert llava.generation_config.eos_token_id == processor.tokenizer.eos_token_id
        assert llava.generation_config.pad_token_id is not None
    assert processor.tokenizer.encode("<image>", add_special_tokens=False) == [made.image_token_id]
    assert llava.config.image_token_id == made.image_token_id
    assert len(processor.tokenizer.encode("<", add_special_tokens=False)) == 1
    assert sum(made.parameters.values()) == sum(p.numel() for p in llava.parameters())


@pytest.mark.parametrize("kind", ["clip_vision", "clip", "siglip"])
def test_features_are_the_projected_layer_before_the_last(tmp_path: Path, qwen: Path, kind: str) -> None:
    tower = vision_tower(tmp_path / "vision", kind)
    compose(str(tower), str(qwen), tmp_path / "out")
    llava = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    plain = AutoProcessor.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        features = torch.stack(list(llava.model.get_image_features(pixels).pooler_output))
        if kind == "clip_vision":
            states = CLIPVisionModel.from_pretrained(tower)(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
            assert torch.equal(features, llava.model.multi_modal_projector(states))
    assert features.shape == (2, 16, 32)
    text = plain(images=[_image()], text="<image>\nWhat?", return_tensors="pt")
    assert int((text.input_ids == llava.config.image_token_id).sum()) == 16
    llava(**text)


def _image() -> object:
    from PIL import Image

    return Image.new("RGB", (70, 30), "red")


def test_a_second_build_is_identical_and_another_seed_is_not(tmp_path: Path, clip: Path, qwen: Path) -> None:
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        compose(str(clip), str(qwen), tmp_path / name, "llava_next", seed=seed)
        files = sorted(p for p in (tmp_path / name).iterdir() if p.is_file())
        hashes.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert hashes[0] == hashes[1]
    assert {name for name in hashes[0] if hashes[0][name] != hashes[2][name]} == {"model.safetensors"}


def test_it_loads_by_the_auto_classes_in_another_process_and_stops(llava_1_5: Path) -> None:
    code = f"""
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained({str(llava_1_5)!r})
processor = AutoProcessor.from_pretrained({str(llava_1_5)!r})
with torch.no_grad():
    model.lm_head.weight.zero_()[151645] = 0  # whatever comes, <|im_end|> is made the likeliest
    model.lm_head.weight[151645] = model.model.language_model(input_ids=torch.tensor([[9]])).last_hidden_state[0, -1]
out = model.generate(input_ids=torch.tensor([[9]]), max_new_tokens=20, do_sample=False)
assert out.tolist() == [[9, 151645]], out
print(type(model).__name__, type(processor).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["LlavaForConditionalGeneration", "LlavaProcessor"], done.stderr


def test_the_chat_template_marks_the_answer_and_its_end_token(llava_1_5: Path) -> None:
    processor = AutoProcessor.from_pretrained(llava_1_5)
    question = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    turns = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": "And here?"},
        {"role": "assistant", "content": "A dog."},
    ]
    start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    start += "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n"
    asked = processor.tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert asked == start + "<|im_start|>assistant\n"
    whole = processor.tokenizer.apply_chat_template(
        turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [i for i, m in zip(whole["input_ids"], whole["assistant_masks"], strict=True) if m]
    assert processor.tokenizer.decode(marked) == "A cat.<|im_end|>A dog.<|im_end|>"
    assert processor.tokenizer.decode(whole["input_ids"]).startswith(asked)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_tokenizer_without_chat_tokens_ends_answers_by_eos(
    tmp_path: Path, clip: Path, tokenizers: Path, family: str
) -> None:
    source = language_model(tmp_path / "lm", family, tokenizers)
    if family == "mistral":
        (source / "chat_template.jinja").write_text("{{ '[INST]' }}")
    made = compose(str(clip), str(source), tmp_path / "out")
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    expected = {"llama": "USER: Hi? ASSISTANT: Yes.</s>", "mistral": "[INST] Hi? [/INST] Yes.</s>"}
    assert text.endswith(expected[family])
    assert made.template == {"llama": "vicuna_v1", "mistral": "mistral"}[family]


REFUSED = {
    "opt": OPTConfig(hidden_size=32, ffn_dim=32, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=32),
    "gpt2": GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=300),
    "gemma2": Gemma2Config(**SHAPE, vocab_size=300, head_dim=8, num_key_value_heads=2, final_logit_softcapping=0.01),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_language_model_that_does_not_fit_is_refused_by_one_sentence(
    tmp_path: Path, clip: Path, tokenizers: Path, name: str
) -> None:
    config: PretrainedConfig = REFUSED[name]
    source = other_language_model(tmp_path / "lm", config, tokenizers)
    with pytest.raises(UserError, match=rf"is a {name}, wh") as error:
        compose(str(clip), str(source), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lm"]


def test_mistakes_on_the_command_line_are_one_sentence_and_leave_nothing(
    tmp_path: Path, clip: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    other_size = without(clip, tmp_path / "other_size")
    config = (clip / "config.json").read_text().replace('"hidden_size": 48', '"hidden_size": 64')
    (other_size / "config.json").write_text(config)
    bare = without(clip, tmp_path / "bare", "preprocessor_config.json")
    empty = without(qwen, tmp_path / "empty", "*.safetensors")
    mute = without(qwen, tmp_path / "mute", "tokenizer*")
    two = ["--vision", str(clip), "--language", str(qwen)]
    cases = {
        "does not exist": ["--vision", str(tmp_path / "none"), "--language", str(qwen), "--out", "new"],
        "exists already": [*two, "--out", str(tmp_path / "there")],
        "fit its config.json": ["--vision", str(other_size), "--language", str(qwen), "--out", "new"],
        "cuts no square image": ["--vision", str(qwen), "--language", str(qwen), "--out", "new"],
        "no vocabulary": ["--vision", str(clip), "--language", str(clip), "--out", "new"],
        "image processor": ["--vision", str(bare), "--language", str(qwen), "--out", "new"],
        "weights could not be loaded": ["--vision", str(clip), "--language", str(empty), "--out", "new"],
        "tokenizer": ["--vision", str(clip), "--language", str(mute), "--out", "new"],
        "architecture": [*two, "--out", "new", "--architecture", "llava2"],
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    for words, argv in cases.items():
        monkeypatch.setattr(sys, "argv", ["lavic", "compose", *argv])
        assert main() == 2, words
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(said) == 1, (words, err)
        assert words in said[0], said
        assert "Traceback" not in err
        assert out == "", words
        assert sorted(p.name for p in tmp_path.iterdir()) == before, words


def test_the_command_prints_parameters_by_part(
    tmp_path: Path, clip: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["lavic", "compose", "--vision", str(clip), "--language", str(qwen), "--out", str(tmp_path / "m")]
    monkeypatch.setattr(sys, "argv", argv)
    assert main() == 0
    out = capsys.readouterr().out.splitlines()
    llava = AutoModelForImageTextToText.from_pretrained(tmp_path / "m")
    projector = sum(p.numel() for p in llava.model.multi_modal_projector.parameters())
    assert out[1].split() == ["projector", f"{projector:,}", "parameters"]
    assert out[3].split() == ["total", f"{sum(p.numel() for p in llava.parameters()):,}", "parameters"]
    assert len(out) == 5
