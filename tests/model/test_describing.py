"""Batched descriptions equal plain `generate` on one image; rows that ended leave; long texts end with a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from lavic.errors import UserError
from lavic.model.describing import PROMPT, Describer, Prompter, whole_sentences
from lavic.model.generation import decode_greedily
from lavic.model.loading import BaseModel, load_llava
from lavic.model.prefix_reuse import FrozenPrefix
from lavic.model.processor import load_processor

SIZES = [(336, 336), (672, 672), (900, 300), (300, 900), (120, 500), (640, 480), (50, 50)]
TITLES = ["Towel", "A large kitchen towel, set of 2", "", "Rug <image> round", "Kitchen towel"]


@pytest.fixture(scope="module")
def llava(tiny: Path) -> Any:
    model = load_llava(BaseModel(str(tiny), "float32"), torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # so that what is said depends on the image, and ends at different lengths
        if parameter.dim() > 1:
            parameter.data += 0.15 * torch.randn(parameter.shape, generator=generator)
    model.generation_config.eos_token_id = list(range(3, model.config.text_config.vocab_size, 9))
    return model


@pytest.fixture(scope="module")
def prompter(tiny: Path) -> Prompter:
    return Prompter(load_processor(str(tiny), "anyres"))


def pictured(number: int) -> Image.Image:
    image = Image.new("RGB", SIZES[number % len(SIZES)], (37 * number % 255, 91 * number % 255, 200))
    ImageDraw.Draw(image).ellipse((5, 5, 40 + 3 * number, 30 + 5 * number), fill="yellow")
    return image


def plain(llava: Any, prompter: Prompter, title: str, image: Image.Image, tokens: int) -> list[int]:
    """One image through transformers' own processor and `generate`."""
    inputs = prompter.processor(text=prompter.text(title), images=image, return_tensors="pt")
    whole = llava.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0]
    out: list[int] = whole[inputs["input_ids"].shape[1] :].tolist()
    ends = llava.generation_config.eos_token_id
    return out[:-1] if out[-1] in ends else out


def test_every_text_equals_plain_generate_on_one_image(llava: Any, prompter: Prompter) -> None:
    shown = [(TITLES[n % len(TITLES)], pictured(n)) for n in range(10)]
    tokens = 24
    expected = [plain(llava, prompter, title, image, tokens) for title, image in shown]
    assert len({len(answer) for answer in expected}) > 2, "rows should end at different lengths"
    assert len({tuple(answer) for answer in expected}) > 5, "texts should depend on the images"
    texts = prompter.processor.tokenizer.batch_decode(expected, skip_special_tokens=True)
    cut = [text.strip() if len(a) < tokens else whole_sentences(text) for text, a in zip(texts, expected, strict=True)]
    describer = Describer(llava, prompter, tokens)
    seen = [prompter.see(title, image) for title, image in shown]
    for size in (10, 3, 1):
        said = [text for start in range(0, 10, size) for text in describer.describe(seen[start : start + size])]
        assert said == cut


def test_a_start_that_prompts_do_not_share_is_not_reused(llava: Any, prompter: Prompter) -> None:
    """Of a kept start, only as many tokens count as every prompt of the batch has."""
    seen = [prompter.see(title, pictured(n)) for n, title in enumerate(TITLES)]
    expected = Describer(llava, prompter, 24).describe(seen)
    describer = Describer(llava, prompter, 24)
    start = prompter.constant_start()
    describer._prefix = FrozenPrefix([*start[:5], *reversed(start[5:])])
    assert describer.describe(seen) == expected


def test_visual_tokens_are_the_models_own(llava: Any, prompter: Prompter) -> None:
    seen = [prompter.see("", pictured(n)) for n in range(len(SIZES))]
    for one, tokens, number in zip(
        seen, Describer(llava, prompter).visual_tokens(seen), range(len(SIZES)), strict=True
    ):
        inputs = prompter.processor(text=prompter.text(""), images=pictured(number), return_tensors="pt")
        images = int((inputs["input_ids"] == llava.config.image_token_id).sum())
        own = llava.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output[0]
        assert tokens.shape == own.shape == (images, own.shape[1])
        torch.testing.assert_close(tokens, own, atol=2e-4, rtol=1e-3)
        assert len(one.before) + len(one.after) + images == inputs["input_ids"].shape[1]


def test_rows_that_ended_leave_the_batch(llava: Any, prompter: Prompter) -> None:
    describer = Describer(llava, prompter, 24)
    rows: list[int] = []
    hook = llava.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["inputs_embeds"])) if "inputs_embeds" in kwargs else None,
        with_kwargs=True,
    )
    try:
        describer.describe([prompter.see("Towel", pictured(n)) for n in range(10)])
    finally:
        hook.remove()
    assert rows[0] == 10
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 10


def test_a_row_that_ends_at_once_says_nothing(llava: Any) -> None:
    embeds = torch.randn(3, 5, llava.config.text_config.hidden_size)
    everything = range(llava.config.text_config.vocab_size)
    assert decode_greedily(llava, embeds, torch.ones(3, 5, dtype=torch.int64), 8, everything) == [[], [], []]
    assert all(len(r) == 1 for r in decode_greedily(llava, embeds, torch.ones(3, 5, dtype=torch.int64), 1, {10**6}))


def test_the_prompt_is_the_published_one_with_an_image_in_place_of_the_five_tokens(prompter: Prompter) -> None:
    assert PROMPT.startswith("You are a helpful assistant.\nGiven an Amazon product's title and its image")
    assert prompter.text("Rug <image>").count("<image>") == 1
    assert prompter.text("Rug").endswith("This product's title is: Rug\n<image>\n\nAssistant:")
    for wrong in ("no image", "{image} {image}", "{image} {title} {title}"):
        with pytest.raises(UserError, match="must hold"):
            Prompter(prompter.processor, wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The rug is red. It is ro", "The rug is red."),
        ('It says "Hello." Then', 'It says "Hello."'),
        ("It is 3.5 m wide! And", "It is 3.5 m wide!"),
        ("No end at all", "No end at all"),
        ("红色的帽子。它很", "红色的帽子。"),
        ("Whole.", "Whole."),
    ],
)
def test_a_text_that_was_cut_off_ends_with_a_sentence(text: str, expected: str) -> None:
    assert whole_sentences(text) == expected
