"""Images that the crawler's tests serve."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def jpeg(seed: int, side: int = 96, mode: str = "RGB", quality: int = 85) -> bytes:
    """A JPEG of noise on a gradient, different for every seed."""
    return encode(image(seed, side).convert(mode), "JPEG", quality=quality)


def image(seed: int, side: int = 96) -> Image.Image:
    """An RGB image, different for every seed."""
    noise = np.random.default_rng(seed).integers(0, 90, (side, side, 3))
    ramp = np.linspace(0, 160, side)[None, :, None]
    return Image.fromarray((noise + ramp).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file's bytes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def blank_png(side: int) -> bytes:
    """A valid black PNG of `side` x `side` pixels in few bytes; built by hand, without the pixels in memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def decodes(data: bytes) -> bool:
    """Whether Pillow decodes the whole file at its full size."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception:
        return False
    return True
