"""A product's card shows the image that is there now."""

import os
from pathlib import Path

from PIL import Image

from lavic.web.cards import thumbnail


def test_a_replaced_image_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "A_0.bmp"
    Image.new("RGB", (40, 40), "red").save(path)
    red, stat = thumbnail(str(path)), path.stat()
    assert red == thumbnail(str(path))
    Image.new("RGB", (40, 40), "blue").save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert thumbnail(str(path)) not in ("", red)
    path.unlink()
    assert thumbnail(str(path)) == ""
