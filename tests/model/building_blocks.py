"""Toy vision towers, and toy language models of several families with the real tokenizers, to compose LLaVAs of."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    SiglipVisionConfig,
    SiglipVisionModel,
)

TOKENIZERS = Path(__file__).parents[3] / "shared" / "systems" / "data" / "tokenizers"
WIDTH = 32
SHAPE = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, tuple[type[PretrainedConfig], str, dict[str, Any]]] = {  # configuration, tokenizer, its own
    "qwen2": (Qwen2Config, "qwen1_5", {"vocab_size": 151936, "num_key_value_heads": 4}),
    "llama": (LlamaConfig, "llama2_legacy_false", {"vocab_size": 32000}),
    "mistral": (MistralConfig, "mistral_v1_legacy_true", {"vocab_size": 32000, "num_key_value_heads": 2}),
    "tied": (LlamaConfig, "llama2_legacy_true", {"vocab_size": 32000, "tie_word_embeddings": True}),
    "gemma3": (
        Gemma3TextConfig,
        "llama2_legacy_false",
        {"vocab_size": 32000, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
    ),
    "phi3": (Phi3Config, "llama2_legacy_false", {"vocab_size": 32000, "num_key_value_heads": 4, "pad_token_id": 0}),
}


def build_tokenizers(folder: Path) -> Path:
    """Directories that transformers loads, of the vocabularies kept beside the project; skips where there are none."""
    if not TOKENIZERS.is_dir():
        pytest.skip(f"the real tokenizers' vocabularies are not at {TOKENIZERS}")
    subprocess.run([sys.executable, str(TOKENIZERS / "build.py"), str(folder)], check=True, capture_output=True)
    return folder


def language_model(folder: Path, family: str, tokenizers: Path, seed: int = 1) -> Path:
    """A random toy of a family, with its generation configuration."""
    kind, tokenizer_name, own = FAMILIES[family]
    tokenizer = AutoTokenizer.from_pretrained(tokenizers / tokenizer_name)
    torch.manual_seed(seed)
    lm = AutoModelForCausalLM.from_config(kind(**SHAPE, **own))
    eos = [151645, 151643] if family == "qwen2" else tokenizer.eos_token_id
    lm.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=151643 if family == "qwen2" else None)
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def other_language_model(folder: Path, config: PretrainedConfig, tokenizers: Path) -> Path:
    """A random toy of any configuration."""
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizers / "llama2_legacy_false").save_pretrained(folder)
    return folder


def vision_tower(folder: Path, kind: str = "clip_vision", hidden: int = 48, side: int = 56) -> Path:
    """A random toy tower of 4 x 4 patches (side 56) and 3 layers: CLIP's alone, a whole CLIP, or SigLIP's."""
    torch.manual_seed(2)
    shape = {"hidden_size": hidden, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"image_size": side, "patch_size": 14}
    if kind == "clip_vision":
        CLIPVisionModel(CLIPVisionConfig(**shape)).save_pretrained(folder)
    elif kind == "clip":
        CLIPModel(CLIPConfig(vision_config=shape, text_config={"num_hidden_layers": 1})).save_pretrained(folder)
    else:
        SiglipVisionModel(SiglipVisionConfig(**shape)).save_pretrained(folder)
    size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    CLIPImageProcessor(**size).save_pretrained(folder)
    return folder


def without(folder: Path, copy: Path, *names: str) -> Path:
    """A copy of a checkpoint without some of its files."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*names))
    return copy
