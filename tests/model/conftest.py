"""Toys to compose, and composed ones."""

from pathlib import Path

import pytest

from lavic.model.composing import compose
from tests.model.building_blocks import build_tokenizers, language_model, vision_tower


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the real tokenizers; skips where their vocabularies are not at hand."""
    return build_tokenizers(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy CLIP vision tower."""
    return vision_tower(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory, tokenizers: Path) -> Path:
    """A toy Qwen2 with the real vocabulary."""
    return language_model(tmp_path_factory.mktemp("qwen"), "qwen2", tokenizers)


@pytest.fixture(scope="session")
def llava_1_5(tmp_path_factory: pytest.TempPathFactory, clip: Path, qwen: Path) -> Path:
    """A LLaVA-1.5 composed of the two: read only."""
    folder = tmp_path_factory.mktemp("composed") / "llava"
    compose(str(clip), str(qwen), folder)
    return folder


@pytest.fixture(scope="session")
def llava_1_6(tmp_path_factory: pytest.TempPathFactory, clip: Path, qwen: Path) -> Path:
    """A LLaVA-1.6 composed of the two: read only."""
    folder = tmp_path_factory.mktemp("composed") / "llava_next"
    compose(str(clip), str(qwen), folder, "llava_next")
    return folder
