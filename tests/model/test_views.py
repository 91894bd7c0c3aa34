"""Decoding and cutting: the model's own processor, on one grid, as uint8."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from transformers import LlavaNextImageProcessor

from lavic.catalogue.images import BrokenImage, image_size, open_image
from lavic.model.views import count_views, cut_views, restrict_grid
from lavic.model.visual_tokens import Normalise, blank_views

SHAPES = [(300, 300), (1200, 200), (100, 900), (40, 41), (1000, 700)]


@pytest.fixture
def image() -> Image.Image:
    image = Image.linear_gradient("L").resize((500, 333)).convert("RGB")
    ImageDraw.Draw(image).ellipse((50, 40, 200, 220), fill="crimson")
    return image


def processor(views: str) -> LlavaNextImageProcessor:
    sizes = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    return restrict_grid(LlavaNextImageProcessor(**sizes), views)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
def test_five_gives_five_views_of_every_shape(shape: tuple[int, int]) -> None:
    cut = cut_views(processor("five"), Image.new("RGB", shape))
    assert cut.shape == (5, 3, 336, 336)
    assert cut.dtype == torch.uint8
    assert count_views(processor("five"), *shape) == 5


def test_anyres_gives_as_many_views_as_it_counts() -> None:
    counts = [count_views(processor("anyres"), *shape) for shape in SHAPES]
    assert counts == [len(cut_views(processor("anyres"), Image.new("RGB", shape))) for shape in SHAPES]
    assert set(counts) >= {3, 4, 5}


def test_normalised_views_are_what_the_models_processor_gives(image: Image.Image) -> None:
    own = Normalise(processor("five"))(cut_views(processor("five"), image), torch.float32)
    reference = processor("five")(images=image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(own, reference, atol=2e-6, rtol=0)


def test_a_blank_view_is_zero_once_normalised_to_half_a_grey_level() -> None:
    blank = Normalise(processor("five"))(blank_views(processor("five"), 2), torch.float32)
    assert blank.shape == (2, 3, 336, 336)
    assert blank.abs().max() < 0.5 / 255 / 0.26


def test_images_of_any_mode_become_rgb(tmp_path: Path, image: Image.Image) -> None:
    for mode, name in (("L", "grey.png"), ("P", "palette.gif"), ("RGBA", "alpha.png"), ("CMYK", "print.jpg")):
        image.convert(mode).save(tmp_path / name)
        assert open_image(tmp_path / name).mode == "RGB"
        assert image_size(tmp_path / name) == image.size


def test_what_cannot_be_decoded_whole_is_refused_with_its_reason(tmp_path: Path, image: Image.Image) -> None:
    image.save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.jpg").touch()
    reasons = {"cut": "image broken", "page": "image broken", "empty": "image empty", "none": "image missing"}
    for name, reason in reasons.items():
        for read in (open_image, image_size):
            with pytest.raises(BrokenImage, match=reason):
                read(tmp_path / f"{name}.jpg")


@pytest.mark.parametrize("progressive", [False, True])
def test_the_check_finds_a_cut_at_any_byte_that_decoding_finds(tmp_path: Path, progressive: bool) -> None:
    noise = torch.randint(0, 256, (150, 210, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "cut.jpg"
    Image.fromarray(noise.numpy()).save(path, progressive=progressive)
    whole = path.read_bytes()
    verdicts = []
    for end in (*range(0, len(whole), len(whole) // 40), len(whole) - 3, len(whole) - 2, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:end])
        both = []
        for read in (open_image, image_size):
            try:
                read(path)
                both.append(True)
            except BrokenImage:
                both.append(False)
        verdicts.append(both)
    assert all(full == reduced for full, reduced in verdicts)
    assert verdicts[-1] == [True, True]
    assert verdicts[0] == [False, False]
