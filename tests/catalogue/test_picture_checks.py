"""Verdicts on pictures: what several threads find at the same time is all kept."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lavic.data import picture_checks
from PIL import Image

from lavic.catalogue.picture_checks import PictureChecks


def test_verdicts_of_several_threads_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = [f"B{i:09}_0.jpg" for i in range(8)]
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / name)
    before = PictureChecks(folder, tmp_path)
    before.check(names[0])
    before.save()

    def slow_loads(text: str) -> object:  # so that threads which each read the file would do so at the same time
        time.sleep(0.2)
        return json.JSONDecoder().decode(text)

    monkeypatch.setattr(picture_checks.json, "loads", slow_loads)
    checks = PictureChecks(folder, tmp_path)
    with ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(checks.check, names)) == [(8, 6)] * len(names)
    checks.save()

    def decoded_again(path: Path) -> None:
        raise AssertionError(f"{path.name} is decoded again")

    monkeypatch.setattr(picture_checks, "picture_size", decoded_again)
    assert [PictureChecks(folder, tmp_path).check(name) for name in names] == [(8, 6)] * len(names)
