"""Verdicts on images: what several threads find at the same time is all kept."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from lavic.catalogue import image_checks
from lavic.catalogue.image_checks import ImageChecks


def test_verdicts_of_several_threads_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    names = [f"B{i:09}_0.jpg" for i in range(8)]
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / name)
    before = ImageChecks(folder, tmp_path)
    before.check(names[0])
    before.save()

    def slow_read(path: Path) -> object:  # so that threads which each read the file would do so at the same time
        time.sleep(0.2)
        return json.loads(path.read_text())

    monkeypatch.setattr(image_checks, "read_json", slow_read)
    checks = ImageChecks(folder, tmp_path)
    with ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(checks.check, names)) == [(8, 6)] * len(names)
    checks.save()

    def decoded_again(path: Path) -> None:
        raise AssertionError(f"{path.name} is decoded again")

    monkeypatch.setattr(image_checks, "image_size", decoded_again)
    assert [ImageChecks(folder, tmp_path).check(name) for name in names] == [(8, 6)] * len(names)
