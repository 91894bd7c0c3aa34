"""From the bytes of a body to the bytes of a JPEG file that is known to decode."""

import io
from contextlib import suppress
from dataclasses import dataclass

import simplejpeg  # type: ignore[import-untyped]
from PIL import Image, UnidentifiedImageError

from crawl.jpeg_oddities import without_oddities
from lavic.catalogue.images import orientation, to_rgb, upright_size

# TIFF, ICO, EPS and the rest are seldom images of products, and their decoders are the least hardened.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")

Bytes = bytes | memoryview

Image.MAX_IMAGE_PIXELS = None  # `max_pixels` below is checked before any pixel is decoded


class BrokenImageError(ValueError):
    """The bytes are not a whole image within the caps; the message says why."""


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """A JPEG file's bytes, all of whose bit stream has been decoded once; sides in pixels, upright."""

    data: Bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ImageRules:
    """What an image may measure, and what it becomes."""

    max_pixels: int  # width x height of what is decoded
    max_side: int  # pixels; longer sides are shrunk to it, 0 keeps every size
    quality: int  # of the JPEGs that are encoded here, 1..95


def to_verified_jpeg(data: Bytes, rules: ImageRules) -> VerifiedImage:
    """Decode `data` whole. A grey or RGB JPEG keeps its bytes, but for oddities that cost no pixel
    (`jpeg_oddities.py`); all else becomes an RGB JPEG.

    Raises BrokenImageError for what is no image, is cut or damaged, or is over `max_pixels`.
    """
    if data[:3] == b"\xff\xd8\xff":
        data, size, three_or_one_channels = _check_jpeg(data, rules.max_pixels)
        small_enough = not rules.max_side or max(size) <= rules.max_side
        if three_or_one_channels and small_enough:
            return VerifiedImage(data, *_upright_size(data, size))
    return _convert(bytes(data), rules)


def _check_jpeg(data: Bytes, max_pixels: int) -> tuple[Bytes, tuple[int, int], bool]:
    """The bytes without a harmless oddity, width and height, and whether the file is grey or RGB."""
    try:
        return data, *_decode_strictly(data, max_pixels)
    except BrokenImageError:
        raise
    except ValueError as error:
        if mended := without_oddities(bytes(data)):
            with suppress(ValueError):
                return mended, *_decode_strictly(mended, max_pixels)
        raise BrokenImageError(f"damaged JPEG: {error}") from error


def _decode_strictly(data: Bytes, max_pixels: int) -> tuple[tuple[int, int], bool]:
    """Width and height, and whether the JPEG is grey or RGB. Raises ValueError.

    The bit stream is decoded at an eighth of the size: every code word is read, few pixels are computed.
    `strict` makes libjpeg's warnings errors, a missing end marker's among them: Pillow keeps them to itself, and
    so takes a JPEG with a hole, or one that was cut and closed again, for a whole one.
    """
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    if width * height > max_pixels:
        raise BrokenImageError(f"over the cap on pixels: {width} x {height}")
    plain = colours not in {"CMYK", "YCCK"}
    simplejpeg.decode_jpeg(
        data, colorspace="GRAY" if plain else "CMYK", fastdct=True, fastupsample=True,
        min_height=1, min_width=1, min_factor=8, strict=True,
    )  # fmt: skip
    return (width, height), plain


def _upright_size(data: Bytes, size: tuple[int, int]) -> tuple[int, int]:
    """The sides of a JPEG as it is shown; its head is read again only if it says anything about turning."""
    whole = bytes(data)
    if b"Exif\0" not in whole and b"Orientation" not in whole:
        return size
    with Image.open(io.BytesIO(whole), formats=("JPEG",)) as opened:
        return upright_size(size, orientation(opened))


def _convert(data: bytes, rules: ImageRules) -> VerifiedImage:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            if opened.width * opened.height > rules.max_pixels:
                raise BrokenImageError(f"over the cap on pixels: {opened.width} x {opened.height}")
            image = to_rgb(opened)
            if rules.max_side and max(image.size) > rules.max_side:
                image.thumbnail((rules.max_side, rules.max_side), Image.Resampling.LANCZOS)
            encoded = io.BytesIO()
            image.save(encoded, "JPEG", quality=rules.quality)
    except BrokenImageError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds, SyntaxError among them
        raise BrokenImageError(_describe(data, error)) from error
    return VerifiedImage(encoded.getvalue(), image.width, image.height)


def _describe(data: bytes, error: Exception) -> str:
    if not data:
        return "the body is empty"
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<body")):
        return "not an image: an HTML page"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be read"
    return f"damaged image: {str(error)[:120]}"
