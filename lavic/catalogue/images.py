"""A picture file -> RGB: one rule for what is decoded, and a word or two for what cannot be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image


class BrokenPicture(Exception):
    """A picture that cannot be used; the message is the reason, in a word or two."""


def open_picture(path: Path) -> Image.Image:
    """Decodes a picture file whole, as RGB.

    Raises:
        BrokenPicture: the file is missing, empty, no picture, cut short, or too large to be decoded safely.
    """
    with _naming_what_is_broken(path), Image.open(path) as picture:
        return picture.convert("RGB")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of a picture that decodes to its end.

    Of a JPEG the whole bit stream is read, but only an eighth of each side is computed: 1.4 ms instead of 4.7 ms for
    800 x 800 pixels.

    Raises:
        BrokenPicture: as `open_picture`.
    """
    with _naming_what_is_broken(path), Image.open(path) as picture:
        size = picture.size
        picture.draft("RGB", (1, 1))  # as small as the format allows
        picture.convert("RGB")
        return size


@contextmanager
def _naming_what_is_broken(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BrokenPicture("picture missing") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        reason = "picture empty" if path.is_file() and path.stat().st_size == 0 else "picture broken"
        raise BrokenPicture(reason) from None
