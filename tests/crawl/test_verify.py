"""Nothing broken passes, nothing whole is refused, and what is stored is a JPEG."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from crawl.verify import BrokenImageError, ImageRules, to_verified_jpeg
from tests.crawl.images import blank_png, encode, image, jpeg

RULES = ImageRules(max_pixels=1_000_000, max_side=0, quality=90)


def opened(data: bytes | memoryview) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_no_truncated_jpeg_passes(options: dict[str, object]) -> None:
    whole = encode(image(1, 200), "JPEG", quality=85, **options)
    assert to_verified_jpeg(whole, RULES).data is whole
    rng = random.Random(0)
    for length in [len(whole) - 1, len(whole) - 2, 0, 2, 3, *(rng.randrange(1, len(whole)) for _ in range(100))]:
        with pytest.raises(BrokenImageError):
            to_verified_jpeg(whole[:length], RULES)


def test_no_jpeg_with_a_hole_passes() -> None:
    """Pillow decodes each of these without a word: libjpeg's warnings have to be heard."""
    whole = jpeg(2, side=300)
    rng = random.Random(0)
    for _ in range(50):
        start = rng.randrange(1000, len(whole) - 3000)
        for broken in (whole[:start] + whole[start + 2000 :], whole[:start] + b"\xff\xd9"):
            with pytest.raises(BrokenImageError):
                to_verified_jpeg(broken, RULES)


def test_a_cut_jpeg_with_a_whole_thumbnail_does_not_pass() -> None:
    thumbnail = jpeg(3, side=32)
    block = b"Exif\0\0" + thumbnail
    whole = jpeg(4, side=200)
    with_thumbnail = whole[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + whole[2:]
    assert to_verified_jpeg(with_thumbnail, RULES).width == 200
    with pytest.raises(BrokenImageError):
        to_verified_jpeg(with_thumbnail[:-2], RULES)


def test_bytes_behind_the_end_do_no_harm() -> None:
    padded = jpeg(5) + b"\0" * 20
    assert to_verified_jpeg(padded, RULES).data is padded


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_other_formats_become_rgb_jpegs(kind: str) -> None:
    verified = to_verified_jpeg(encode(image(6), kind), RULES)
    shown = opened(verified.data)
    assert (shown.format, shown.mode, shown.size) == ("JPEG", "RGB", (verified.width, verified.height))
    difference = np.abs(np.asarray(shown).astype(int) - np.asarray(image(6)).astype(int)).mean()
    assert difference < 25  # GIF has a palette of 256


def test_cut_pngs_do_not_pass() -> None:
    whole = encode(image(7), "PNG")
    for length in (len(whole) // 4, len(whole) // 2, len(whole) - 100):
        with pytest.raises(BrokenImageError):
            to_verified_jpeg(whole[:length], RULES)


def test_modes_become_rgb() -> None:
    sample = image(8, 64)
    for mode, kind in (("CMYK", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("1", "PNG"), ("L", "PNG")):
        shown = opened(to_verified_jpeg(encode(sample.convert(mode), kind), RULES).data)
        assert (shown.format, shown.mode) == ("JPEG", "RGB"), mode
    deep = Image.fromarray(np.full((32, 32), 40_000, np.uint16))
    shown = opened(to_verified_jpeg(encode(deep, "PNG"), RULES).data)
    assert shown.getpixel((5, 5)) == pytest.approx((156,) * 3, abs=2)


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert opened(to_verified_jpeg(encode(clear, "PNG"), RULES).data).getpixel((5, 5)) == (255, 255, 255)


def test_grey_jpegs_keep_their_bytes() -> None:
    grey = jpeg(9, mode="L")
    assert to_verified_jpeg(grey, RULES).data is grey


def test_max_side_shrinks_and_keeps_the_ratio() -> None:
    wide = encode(Image.new("RGB", (400, 200)), "JPEG")
    image = to_verified_jpeg(wide, ImageRules(1_000_000, 100, 90))
    assert (image.width, image.height) == opened(image.data).size == (100, 50)
    assert to_verified_jpeg(wide, ImageRules(1_000_000, 400, 90)).data is wide


def test_caps_on_pixels_hold_before_anything_is_decoded() -> None:
    for data in (blank_png(20_000), encode(Image.new("RGB", (2000, 1000)), "JPEG")):
        with pytest.raises(BrokenImageError, match="cap on pixels"):
            to_verified_jpeg(data, RULES)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"<html>", "HTML"), (b"  <!DOCTYPE html>", "HTML"), (b"GIF89a", "image")],
)
def test_what_is_no_image_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImageError, match=reason):
        to_verified_jpeg(data, RULES)
