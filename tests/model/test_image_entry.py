"""How images enter: square views, token counts and visual tokens, beside transformers' own and plain code."""

import random
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPImageProcessor

from lavic.errors import UserError
from lavic.model.composing import compose
from lavic.model.image_entry import ImageEntry, ImageReader, touch
from lavic.model.loading import BaseModel, load_llava
from lavic.model.parts import Lora, Short, place_adapters, short_parts, trained_parameters, unwrap
from lavic.model.speedups import Speedups, speed_up
from lavic.model.visual_tokens import fill_placeholders
from tests.model.building_blocks import vision_tower

CPU = torch.device("cpu")
rng = random.Random(5)
SIZES = [(1, 1), (7, 301), (301, 7), (1, 500), (64, 64), (57, 56)]
SIZES += [(rng.randint(1, 400), rng.randint(1, 400)) for _ in range(12)]


def noise(width: int, height: int) -> Image.Image:
    generator = torch.Generator().manual_seed(width * 1000 + height)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def on_a_square(image: Image.Image) -> Image.Image:
    """As LLaVA pads: centred on a square of the longer side, of CLIP's mean colour."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


@pytest.mark.parametrize("shape", ["pad", "square"])
def test_the_one_view_is_clip_s_of_the_padded_or_the_plain_image(llava_1_5: Path, shape: str) -> None:
    config = load_llava(BaseModel(str(llava_1_5)), CPU).config
    reader = ImageReader(str(llava_1_5), config, ImageEntry(shape=shape))  # type: ignore[arg-type]
    clip = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    normalise = reader.normaliser()
    for width, height in SIZES:
        image = noise(width, height)
        views = reader.cut(image)
        assert views.shape == (1, 3, 56, 56)
        wanted = clip(on_a_square(image) if shape == "pad" else image, return_tensors="pt").pixel_values
        torch.testing.assert_close(normalise(views, torch.float32), wanted, atol=1e-5, rtol=0)


def entered(reader: ImageReader, llava: torch.nn.Module, images: list[Image.Image], text: str) -> Tensor:
    """Logits of a text with its images, entered by our own code."""
    tokenizer = reader.processor.tokenizer
    for image in images:
        text = text.replace("<image>", "<run>" * reader.count(*image.size), 1)
    ids = tokenizer(text.replace("<run>", "<image>"), return_tensors="pt").input_ids
    pixels = reader.normaliser()(torch.cat([reader.cut(image) for image in images]), torch.float32)
    with torch.no_grad():
        visual = reader.visual_tokens(llava, pixels, reader.order([image.size for image in images]))
        embeds = llava.get_input_embeddings()(ids)  # type: ignore[operator]
        embeds = fill_placeholders(embeds, ids, visual, [reader.image_token_id])
        assert int((ids == reader.image_token_id).sum()) == len(visual)
        return llava(inputs_embeds=embeds).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ["llava_1_5", "llava_1_6"])
def test_patch_tokens_enter_as_transformers_enters_them(request: pytest.FixtureRequest, architecture: str) -> None:
    folder = str(request.getfixturevalue(architecture))
    llava = load_llava(BaseModel(folder), CPU)
    reader = ImageReader(folder, llava.config, ImageEntry())
    processor = AutoProcessor.from_pretrained(folder)
    for sizes in (SIZES[0:2], SIZES[2:4], *([size] for size in SIZES[4:])):
        images = [noise(*size) for size in sizes]
        text = "".join(f"<image>\nImage {i}?" for i in range(len(images)))
        inputs = processor(images=images, text=text, return_tensors="pt")
        with torch.no_grad():
            wanted = llava(**inputs).logits
        found = entered(reader, llava, images, text)
        assert found.shape == wanted.shape, sizes
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["llava_1_5", "llava_1_6"])
@pytest.mark.parametrize("views", ["five", "anyres"])
def test_class_tokens_enter_any_llava(request: pytest.FixtureRequest, architecture: str, views: str) -> None:
    folder = str(request.getfixturevalue(architecture))
    llava = load_llava(BaseModel(folder), CPU)
    reader = ImageReader(folder, llava.config, ImageEntry("cls", views))  # type: ignore[arg-type]
    for size in SIZES[:6]:
        count = reader.count(*size)
        assert count == len(reader.cut(noise(*size)))
        assert count == 5 if views == "five" else 3 <= count <= 5
    assert entered(reader, llava, [noise(30, 90)], "<image>\nWhat?").isfinite().all()


@pytest.mark.parametrize("tokens", ["patch", "cls"])
def test_a_red_and_a_green_image_give_other_losses_where_pad_is_eos(llava_1_5: Path, tokens: str) -> None:
    llava = load_llava(BaseModel(str(llava_1_5)), CPU)
    reader = ImageReader(str(llava_1_5), llava.config, ImageEntry(tokens))  # type: ignore[arg-type]
    reader.processor.tokenizer.pad_token = reader.processor.tokenizer.eos_token
    losses = []
    for colour in ("red", "green"):
        logits = entered(reader, llava, [Image.new("RGB", (60, 40), colour)], "<image>\nWhat colour? It is red.")
        losses.append(float(-logits.log_softmax(-1)[0, -2, 13]))
    assert abs(losses[0] - losses[1]) > 1e-4


def test_a_text_without_image_gives_vision_and_projector_a_gradient_of_zero(llava_1_6: Path) -> None:
    llava = load_llava(BaseModel(str(llava_1_6)), CPU)
    model = place_adapters(llava, short_parts("full"), "x", entry="patch")
    ids = torch.arange(5, 15)[None]
    (llava(input_ids=ids).logits.float().mean() + touch(llava)).backward()
    gradients = {name: (part, p.grad) for name, p, part in trained_parameters(model)}
    assert all(grad is not None for _, grad in gradients.values())
    assert all((grad == 0).all() for part, grad in gradients.values() if part != "language" and grad is not None)
    assert sum(part != "language" for part, _ in gradients.values()) > 30


def test_a_shape_is_asked_of_one_view_only(llava_1_5: Path, llava_1_6: Path) -> None:
    for folder, entry in ((llava_1_6, ImageEntry(shape="pad")), (llava_1_5, ImageEntry("cls", shape="square"))):
        config = AutoModelForImageTextToText.from_pretrained(folder).config
        with pytest.raises(UserError, match="leave it out"):
            ImageReader(str(folder), config, entry)


def test_a_tower_without_class_token_is_named(tmp_path: Path, qwen: Path) -> None:
    compose(str(vision_tower(tmp_path / "siglip", "siglip")), str(qwen), tmp_path / "m")
    llava = load_llava(BaseModel(str(tmp_path / "m")), CPU)
    with pytest.raises(UserError, match=r"siglip_vision_model\) has no class token; give tokens: patch"):
        ImageReader(str(tmp_path / "m"), llava.config, ImageEntry("cls"))
    speed_up(llava, Speedups())  # leaves the tower as it is
    reader = ImageReader(str(tmp_path / "m"), llava.config, ImageEntry())
    assert entered(reader, llava, [noise(9, 70)], "<image>\nWhat?").isfinite().all()


@pytest.mark.parametrize("layer", [-2, -1])
def test_speedups_leave_patch_tokens_as_they_are(llava_1_5: Path, layer: int) -> None:
    llava = load_llava(BaseModel(str(llava_1_5)), CPU)
    llava.config.vision_feature_layer = layer
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = torch.cat(llava.model.get_image_features(pixels).pooler_output)
        speed_up(llava, Speedups())
        after = torch.cat(llava.model.get_image_features(pixels).pooler_output)
    assert torch.equal(before, after)


TRAINED = {
    "lora": r"model\.multi_modal_projector\..*|model\.language_model\.layers\.\d\..*_proj\.lora_[AB]\.default\.weight",
    "full": r"model\.multi_modal_projector\..*|model\.language_model\..*|lm_head\.weight"
    r"|model\.vision_tower\.(?!post_layernorm|encoder\.layers\.2\.).*",
    "freeze_vision": r"model\.multi_modal_projector\..*|model\.language_model\..*|lm_head\.weight",
    "projector": r"model\.multi_modal_projector\..*",
}


@pytest.mark.parametrize("name", TRAINED)
def test_three_steps_change_exactly_what_is_trained(llava_1_5: Path, name: Short) -> None:
    llava = load_llava(BaseModel(str(llava_1_5)), CPU)
    parts = short_parts(name, Lora(dropout=0.0))
    model = place_adapters(llava, parts, "x", entry="patch")
    every = dict(unwrap(model).named_parameters())
    wanted = {n for n in every if re.fullmatch(TRAINED[name], n)}
    assert {n for n, _, _ in trained_parameters(model)} == wanted
    assert not any("lora_" in n for n in every if "vision_tower" in n)
    before = {n: p.detach().clone() for n, p in every.items()}
    optimizer = torch.optim.AdamW([p for _, p, _ in trained_parameters(model)], lr=1e-3)
    reader = ImageReader(str(llava_1_5), llava.config, ImageEntry())
    text = "<image>" * 16 + "\nWhat colour? It is red."
    ids = reader.processor.tokenizer(text, return_tensors="pt").input_ids
    for step in range(3):
        pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(step))
        model(input_ids=ids, pixel_values=pixels, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {n for n, p in every.items() if not torch.equal(p, before[n])}
    assert changed == wanted - {n for n in wanted if "k_proj.bias" in n and n not in changed}  # softmax ignores it
