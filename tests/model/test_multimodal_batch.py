"""Batches of texts with images: losses and answers are those of plain transformers, of both families."""

from functools import partial

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from lavic.batching.padding import pad, pad_left
from lavic.model.image_entry import ImageEntry, ImageReader
from lavic.model.loading import BaseModel, load_llava
from lavic.model.multimodal_batch import MultimodalBatch, answers, loss_sum, prepare, visual_tokens
from lavic.model.speedups import PLAIN, Speedups

SIZES = [(60, 50), (300, 70), (40, 200)]
TEXTS = ["<image>\nWhat?", "Look: <image> and tell me what it is", "<image>\nWhere is it?"]


@pytest.fixture(params=["llava_1_5", "llava_1_6"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def image(width: int, height: int) -> Image.Image:
    generator = torch.Generator().manual_seed(width)
    return Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy())


def batch_of(reader: ImageReader, count: int, target: int | None = None) -> MultimodalBatch:
    """The first texts with their images; `target` tokens at the end of each are supervised."""
    tokenizer = reader.processor.tokenizer
    runs = [text.replace("<image>", "<image>" * reader.count(*size)) for text, size in zip(TEXTS, SIZES, strict=True)][
        :count
    ]
    sequences = [tokenizer(text)["input_ids"] for text in runs]
    padded = pad_left(sequences, 0) if target is None else pad(sequences, [len(s) - target for s in sequences], 0)
    images = [image(*size) for size in SIZES[:count]]
    views = torch.cat([reader.cut(one) for one in images])
    tokens = sum(reader.count(*size) for size in SIZES[:count])
    return {**padded, "views": views, "sizes": SIZES[:count], "image_tokens": tokens}


def test_the_loss_and_its_gradients_are_transformers_own(folder: str) -> None:
    llava = load_llava(BaseModel(folder), torch.device("cpu"))
    reader = ImageReader(folder, llava.config, ImageEntry())
    batch = batch_of(reader, 3, target=4)
    prepare(batch, reader, Speedups())
    watched = {name: p for name, p in llava.named_parameters() if "linear_1" in name or "newline" in name}
    watched |= {name: p for name, p in llava.named_parameters() if "q_proj.weight" in name and "layers.0" in name}
    for parameter in watched.values():
        parameter.requires_grad_(True)
    found = loss_sum(llava, reader, batch, visual_tokens(llava, reader, reader.normaliser(), batch))
    gradients = torch.autograd.grad(found, list(watched.values()))

    plain, processor = torch.zeros(()), AutoProcessor.from_pretrained(folder)
    for text, size in zip(TEXTS, SIZES, strict=True):
        inputs = processor(images=image(*size), text=text, return_tensors="pt")
        scores = llava(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0]
        plain = plain - sum(scores[place - 1, ids[place]] for place in range(len(ids) - 4, len(ids)))
    assert float(found.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    assert len(watched) >= 4
    for name, ours, theirs in zip(watched, gradients, torch.autograd.grad(plain, list(watched.values())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=partial("{}: {}".format, name))


def test_answers_are_those_of_transformers_generate(folder: str) -> None:
    llava = load_llava(BaseModel(folder), torch.device("cpu")).eval()
    for parameter in llava.parameters():  # so that what is said differs, and depends on the image
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    reader = ImageReader(folder, llava.config, ImageEntry())
    processor = AutoProcessor.from_pretrained(folder)
    said, ids = [], []
    for text, size in zip(TEXTS, SIZES, strict=True):
        inputs = processor(images=image(*size), text=text, return_tensors="pt")
        tokens = llava.generate(**inputs, max_new_tokens=9, do_sample=False, eos_token_id=None)
        ids.append(tokens[0, inputs["input_ids"].shape[1] :].tolist())
    stop = ids[0][4]  # one row ends early, and leaves the batch
    for tokens in ids:
        kept = tokens[: tokens.index(stop)] if stop in tokens else tokens
        said.append(processor.tokenizer.decode(kept, skip_special_tokens=True).strip())
    assert len(set(said)) == 3
    batch = batch_of(reader, 3)
    prepare(batch, reader, PLAIN)
    with torch.no_grad():
        seen = visual_tokens(llava, reader, reader.normaliser(), batch)
    assert answers(llava, reader, batch, seen, 9, {stop}) == said
    del batch["order"]  # that of one which was not prepared is made when it is needed
    with torch.no_grad():
        again = visual_tokens(llava, reader, reader.normaliser(), batch)
    assert torch.equal(again, seen)


def test_visual_tokens_for_another_text_are_refused(folder: str) -> None:
    llava = load_llava(BaseModel(folder), torch.device("cpu"))
    reader = ImageReader(folder, llava.config, ImageEntry())
    batch = batch_of(reader, 2)
    batch["image_tokens"] = 3
    with pytest.raises(RuntimeError, match="visual tokens for 3 image tokens"):
        visual_tokens(llava, reader, reader.normaliser(), batch)
