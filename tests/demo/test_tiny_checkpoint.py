from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration, LlavaNextProcessor

from lavic.demo.toy_llava import tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint(folder)
    return folder


def test_has_the_real_checkpoints_form(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= names
    assert isinstance(AutoProcessor.from_pretrained(folder), LlavaNextProcessor)


def test_native_forward_takes_the_processors_output(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaNextForConditionalGeneration.from_pretrained(folder)
    inputs = processor(images=Image.new("RGB", (400, 300)), text="<image>The image shows", return_tensors="pt")
    assert inputs["pixel_values"].shape[-2:] == (336, 336)
    with torch.no_grad():
        assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


def test_five_placeholders_take_free_rows(folder: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    model = LlavaNextForConditionalGeneration.from_pretrained(folder)
    tokenizer.add_tokens([f"<ItemImageEmb{number}>" for number in range(1, 6)])
    assert len(tokenizer) + 3 <= model.get_input_embeddings().num_embeddings


@pytest.mark.parametrize("text", ["A red towel.\n\nIts edges", "Größe ☃", "\u00e2\u0080\u0099s B07K4M2X9T"])
def test_any_text_survives_with_its_offsets(folder: Path, text: str) -> None:
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert encoded["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in encoded["input_ids"]
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == text
    covered = {place for start, end in encoded["offset_mapping"] for place in range(start, end)}
    assert covered == set(range(len(text)))
