"""One rule for decoding: each kind of file against the same pixels made plainly."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lavic.catalogue.images import BrokenImage, image_size, open_image

Pixels = npt.NDArray[np.uint8]
SIZE = (40, 24)
# where the upper left corner of the upright image lies in the stored one, by EXIF's definition: a plain indexing of the
# stored pixels, not Pillow's transposes
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def gradient() -> Pixels:
    ys, xs = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    return np.stack([xs * 6, ys * 10, 255 - xs * 3 - ys * 2], axis=-1).astype(np.uint8)


def decoded(path: Path) -> npt.NDArray[np.int64]:
    image = open_image(path)
    assert image.mode == "RGB"
    assert image_size(path) == image.size
    return np.asarray(image).astype(np.int64)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(path: Path, rows: list[bytes], width: int, depth: int, colour: int, chunks: dict[bytes, bytes]) -> Path:
    """A PNG by its specification: Pillow cannot write all that it reads."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = b"".join(chunk(*pair) for pair in chunks.items())
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + pixels + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 0, 9])
def test_images_stand_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    options: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    Image.fromarray(gradient()).save(path, exif=exif, **options.get(kind, {}))
    expected = UPRIGHT.get(orientation, UPRIGHT[1])(gradient()).astype(int)
    assert np.abs(decoded(path) - expected).max() <= (6 if kind == "jpg" else 0)


@pytest.mark.parametrize(
    "block", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*junk" * 9, b"Exif\0\0\x01"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_turns_nothing(tmp_path: Path, block: bytes) -> None:
    path = tmp_path / "a.jpg"
    stream = io.BytesIO()
    Image.fromarray(gradient()).save(stream, "JPEG", quality=100, subsampling=0)
    whole = stream.getvalue()
    path.write_bytes(whole[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + whole[2:])
    assert np.abs(decoded(path) - gradient().astype(int)).max() <= 6


def on_white(colours: Pixels, alpha: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return colours * alpha[..., None] + 255.0 * (1 - alpha[..., None])


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "png"), ("LA", "png"), ("RGBA", "webp"), ("LA", "tiff")])
def test_what_is_transparent_shows_white(tmp_path: Path, mode: str, kind: str) -> None:
    alpha = np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1))
    image = Image.fromarray(gradient())
    if mode == "LA":
        image = image.convert("L")
    colours = np.asarray(image.convert("RGB"))
    image.putalpha(Image.fromarray(alpha))
    path = tmp_path / f"a.{kind}"
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "webp" else {}
    image.save(path, **options)
    assert np.abs(decoded(path) - on_white(colours, alpha / 255)).max() <= 1.5


def test_palettes_with_transparent_entries_show_white(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    for x in range(3):
        image.putpixel((x, 0), x)
    for name, transparency in (("one.png", 1), ("one.gif", 1), ("bytes.png", b"\xff\x00\x80")):
        image.save(tmp_path / name, transparency=transparency)
        pixels = decoded(tmp_path / name)[0].tolist()
        assert pixels[0] == [200, 10, 10], name
        assert pixels[1] == [255, 255, 255], name
        half = pixels[2]
        assert half == [10, 10, 200] if name.startswith("one") else abs(half[0] - 132) <= 1


@pytest.mark.parametrize(
    ("depth", "row", "key", "expected"),
    [
        (1, bytes([0b01000000]), 1, [0, 255, 0]),
        (1, bytes([0b01000000]), 0, [255, 255, 255]),
        (2, bytes([0b00011000]), 2, [0, 85, 255]),
        (4, bytes([0x05, 0xA0]), 10, [0, 85, 255]),
        (8, bytes([0, 90, 7]), 7, [0, 90, 255]),
        (16, struct.pack(">3H", 0, 0x5A00, 0x5A01), 0x5A01, [0, 0x5A, 255]),
    ],
)
def test_one_transparent_grey_of_any_depth(
    tmp_path: Path, depth: int, row: bytes, key: int, expected: list[int]
) -> None:
    path = png(tmp_path / "a.png", [row], 3, depth, 0, {b"tRNS": struct.pack(">H", key)})
    assert decoded(path)[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize("depth", [8, 16])
def test_one_transparent_colour_of_any_depth(tmp_path: Path, depth: int) -> None:
    scale = 1 if depth == 8 else 257
    colours = [(10, 20, 30), (40, 50, 60)]
    row = b"".join(struct.pack(">3B" if depth == 8 else ">3H", *(c * scale for c in colour)) for colour in colours)
    key = struct.pack(">3H", *(c * scale for c in colours[1]))
    path = png(tmp_path / "a.png", [row], 2, depth, 2, {b"tRNS": key})
    assert decoded(path)[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_pngs_of_16_bits_are_scaled(tmp_path: Path, colour: int, channels: int) -> None:
    values = (np.arange(16 * channels, dtype=np.uint32) * 65535 // (16 * channels)).reshape(16, channels)
    if channels in (2, 4):
        values[:, -1] = 65535
    row = values.astype(">u2").tobytes()
    path = png(tmp_path / "a.png", [row], 16, 16, colour, {})
    grey_or_rgb = values[:, : 1 if channels < 3 else 3]
    expected = np.broadcast_to(grey_or_rgb / 257, (16, 3))
    assert np.abs(decoded(path)[0] - expected).max() <= 1


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_tiffs_of_16_bits_are_scaled(tmp_path: Path, order: str) -> None:
    values = (np.arange(256, dtype=np.uint32) * 257).astype(order).reshape(16, 16)
    path = tmp_path / "a.tiff"
    Image.frombytes("I;16" if order == "<u2" else "I;16B", (16, 16), values.tobytes()).save(path)
    assert np.abs(decoded(path)[..., 0] - np.arange(256).reshape(16, 16)).max() <= 1


@pytest.mark.parametrize("highest", [1.0, 255.0, 65535.0])
def test_fractions_are_scaled(tmp_path: Path, highest: float) -> None:
    values = np.linspace(0, highest, 256, dtype=np.float32).reshape(16, 16)
    path = tmp_path / "a.tiff"
    Image.fromarray(values).save(path)
    assert np.abs(decoded(path)[..., 1] - np.arange(256).reshape(16, 16)).max() <= 1


def test_whole_numbers_of_32_bits_are_scaled(tmp_path: Path) -> None:
    values = (np.arange(128, dtype=np.int64) * 2**24).astype(np.int32).reshape(8, 16)
    path = tmp_path / "a.tiff"
    Image.fromarray(values).save(path)
    assert np.abs(decoded(path)[..., 2] - np.arange(128).reshape(8, 16)).max() <= 1


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_counts(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue", "green")]
    path = tmp_path / f"a.{kind}"
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert (decoded(path) == [255, 0, 0]).all()


def test_cmyk_is_read_as_adobe_writes_it(tmp_path: Path) -> None:
    # Pillow writes Adobe's inverted values with Adobe's marker, as Photoshop does
    path = tmp_path / "a.jpg"
    Image.new("CMYK", SIZE, (0, 255, 255, 0)).save(path, quality=95)
    assert b"Adobe" in path.read_bytes()
    assert np.abs(decoded(path) - [255, 0, 0]).max() <= 4


def test_one_bit_a_pixel(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gradient()[..., 0] > 100).save(path)
    assert (decoded(path)[..., 0] == np.where(gradient()[..., 0] > 100, 255, 0)).all()


def test_a_png_whose_exif_stands_behind_its_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path)
    whole, block = path.read_bytes(), exif.tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(whole[:-12] + chunk(b"eXIf", block) + whole[-12:])
    assert (decoded(path) == UPRIGHT[6](gradient())).all()


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "image missing"), (b"", "image empty"), (b"<html>", "image broken")]
)
def test_what_is_no_image_has_a_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    for look in (open_image, image_size):
        with pytest.raises(BrokenImage, match=reason):
            look(path)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "gif"])
def test_a_cut_image_is_broken(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for look in (open_image, image_size):
        with pytest.raises(BrokenImage, match="image broken"):
            look(path)


@pytest.mark.parametrize("bound", [None, 89_478_485], ids=["lifted by another library", "Pillow's own"])
def test_an_image_too_large_to_be_decoded_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bound)
    Image.new("1", (20_000, 9_000)).save(tmp_path / "huge.png")
    for read in (open_image, image_size):
        with pytest.raises(BrokenImage, match="image too large"):
            read(tmp_path / "huge.png")
