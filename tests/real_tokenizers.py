"""Tokenizers of LLaMA-2, Mistral and Qwen 1.5 from their own vocabularies, where the shared data are."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.model.building_blocks import build_tokenizers

SHARED = Path(__file__).parents[1].parent / "shared" / "systems" / "data"
NAMES = ("llama2_legacy_true", "llama2_legacy_false", "mistral_v1_legacy_true", "qwen1_5")
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")


@cache
def _built() -> "TemporaryDirectory[str]":
    """Removed when the test session's process ends."""
    folder = TemporaryDirectory(prefix="lavic-tokenizers-")
    build_tokenizers(Path(folder.name))
    return folder


@cache
def tokenizer(name: str, end: str | None = None) -> Any:
    """One of `NAMES`, with the image token; with `end` as a token of its own at which answers stop."""
    loaded = AutoTokenizer.from_pretrained(Path(_built().name) / name)
    loaded.add_tokens(["<image>"], special_tokens=True)
    if end is not None:
        loaded.add_special_tokens({"eos_token": end})
    return loaded
