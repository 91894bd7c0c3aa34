"""A tiny model whose losses depend on what it is shown."""

from pathlib import Path

import pytest
import torch
from transformers import LlavaNextForConditionalGeneration

from lavic.demo.toy_llava import tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of the untrained one: at usual initial weights another image changes the loss by 1e-5 only, here by
    a few hundredths of a nat, so that a wrong image, order or place is seen."""
    folder = tmp_path_factory.mktemp("sensitive")
    tiny_checkpoint(folder)
    llava = LlavaNextForConditionalGeneration.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    for parameter in llava.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    llava.save_pretrained(folder)
    return folder
