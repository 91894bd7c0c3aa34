"""Pictures that the crawler's tests serve."""

import io

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


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file's bytes."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def decodes(data: bytes) -> bool:
    """Whether Pillow decodes the whole file at its full size."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except Exception:
        return False
    return True
