"""JPEGs that break a rule and lack nothing are taken, with every pixel; those that lack something are not."""

import io
import random

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image

from crawl.verify import BrokenImageError, ImageRules, to_verified_jpeg
from tests.crawl.images import encode, image, jpeg

RULES = ImageRules(max_pixels=1_000_000, max_side=0, quality=90)
WHOLE = jpeg(1, side=120)
SCAN = WHOLE.rfind(b"\xff\xda")  # the one scan's header
FIRST_SEGMENT = WHOLE.find(b"\xff\xdb")


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


def odd_scan(start: int, end: int, approximation: int) -> bytes:
    at = SCAN + 5 + 2 * WHOLE[SCAN + 4]
    return WHOLE[:at] + bytes([start, end, approximation]) + WHOLE[at + 3 :]


def adobe(transform: int) -> bytes:
    return WHOLE[:FIRST_SEGMENT] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + WHOLE[FIRST_SEGMENT:]


ODD = {
    "no spectral end": odd_scan(0, 0, 0),
    "spectral start": odd_scan(1, 63, 0),
    "an approximation": odd_scan(0, 63, 0x10),
    "bytes between segments": WHOLE[:FIRST_SEGMENT] + b"\0\0junk" + WHOLE[FIRST_SEGMENT:],
    "bytes before the scan": WHOLE[:SCAN] + b"\x10\x20" + WHOLE[SCAN:],
    "fill bytes behind the scan": WHOLE[:-2] + b"\xff" * 5 + WHOLE[-2:],
    "an unknown revision of JFIF": WHOLE.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1),
    "an unknown colour transform": adobe(9),
    "two oddities": odd_scan(0, 0, 0).replace(b"JFIF\0\x01", b"JFIF\0\x03", 1),
}


@pytest.mark.parametrize("oddity", ODD)
def test_what_lacks_nothing_is_taken_with_every_pixel(oddity: str) -> None:
    odd = ODD[oddity]
    taken = bytes(to_verified_jpeg(odd, RULES).data)
    np.testing.assert_array_equal(pixels(taken), pixels(WHOLE))
    simplejpeg.decode_jpeg(taken, strict=True)  # no other reader will have to forgive it


def test_bytes_behind_the_end_stay() -> None:
    assert bytes(to_verified_jpeg(odd_scan(0, 0, 0) + b"motion photo", RULES).data) == WHOLE + b"motion photo"


@pytest.mark.parametrize(
    "options", [{"restart_marker_blocks": 3}, {"subsampling": 0}, {"optimize": True}, {"progressive": True}]
)
def test_jpegs_of_other_kinds_are_written_back_byte_for_byte(options: dict[str, object]) -> None:
    whole = encode(image(3), "JPEG", quality=80, **options)
    odd = whole.replace(b"JFIF\0\x01", b"JFIF\0\x09", 1)
    assert bytes(to_verified_jpeg(odd, RULES).data) == whole


@pytest.mark.parametrize("base", ["plain", "no spectral end"])
def test_what_lacks_its_end_marker_was_cut(base: str) -> None:
    data = WHOLE if base == "plain" else ODD[base]
    for cut in (data[:-1], data[:-2], data[:-3]):
        with pytest.raises(BrokenImageError):
            to_verified_jpeg(cut, RULES)


@pytest.mark.parametrize("base", ["plain", "no spectral end", "bytes before the scan"])
def test_no_oddity_hides_damage(base: str) -> None:
    """A hole, a cut, or foreign bytes in the scan are named whether or not the file is odd besides."""
    data = WHOLE if base == "plain" else ODD[base]
    start = data.rfind(b"\xff\xda") + 20
    rng = random.Random(0)
    for _ in range(40):
        at = rng.randrange(start, len(data) - 700)
        for broken in (data[:at] + data[at + 600 :], data[:at], data[:at] + b"\xff\xd9", data[:at] + b"\0\0\0\xff\xd9"):
            with pytest.raises(BrokenImageError):
                to_verified_jpeg(broken, RULES)
