"""LLaVAs composed of a toy tower and a toy language model, which need no file from elsewhere."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from lavic.demo.toy_tokenizer import train_tokenizer
from lavic.model.composing import Architecture, compose
from tests.instruction_files import COLOURS
from tests.model.building_blocks import SHAPE, vision_tower


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[Architecture, Path]:
    """A LLaVA-1.5 and a 1.6 of one tower and one language model, whose tokenizer knows chatml: read only."""
    folder = tmp_path_factory.mktemp("composed")
    tokenizer = train_tokenizer(["What does it show? A towel. Is it large? Yes. No. ", *COLOURS], max_tokens=200)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    torch.manual_seed(0)
    config = MistralConfig(**SHAPE, num_key_value_heads=2, vocab_size=len(tokenizer) + 8, initializer_range=0.2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    tower = vision_tower(folder / "clip")
    made: dict[Architecture, Path] = {"llava": folder / "llava", "llava_next": folder / "llava_next"}
    for architecture, out in made.items():
        compose(str(tower), str(folder / "lm"), out, architecture)
    return made
