"""Too little room is said before anything is loaded."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from lavic.errors import UserError
from lavic.training.preflight import check_disk, check_gpu
from tests.conftest import Fit

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 50_000_000))
    check_disk(tmp_path, 49e6)
    with pytest.raises(UserError, match=r"has 50\.0 MB free and the checkpoints need 116\.7 MB"):
        check_disk(tmp_path, 116.7e6)


def test_a_gpu_without_room_is_named_and_a_tight_one_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_gpu(20 * GIB, weights=14 * GIB, needed=18 * GIB, device="cuda:0")
    assert caplog.text == ""
    check_gpu(16 * GIB, weights=14 * GIB, needed=18 * GIB, device="cuda:0")
    assert "a step takes about 18.0 GiB" in caplog.text
    with pytest.raises(UserError, match=r"cuda:0 has 8\.0 GiB free and the weights alone take 14\.0 GiB"):
        check_gpu(8 * GIB, weights=14 * GIB, needed=18 * GIB, device="cuda:0")


def test_the_command_line_checks_the_disk_before_loading(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    monkeypatch.setattr("lavic.tasks.base.load_llava", lambda *args: pytest.fail("loaded"))
    with pytest.raises(UserError, match="make room, or give another output directory"):
        fit()
