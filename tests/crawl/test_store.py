"""The disk fails at the worst moment: no temporary file stays, nothing half-written gets a final name."""

import errno
import os
from pathlib import Path

import pytest

from crawl.errors import StorageError
from crawl.store import Store
from crawl.verify import ImageRules
from tests.crawl.images import jpeg


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "crawl.sqlite", ImageRules(1_000_000, 0, 90))


def test_a_failing_rename_leaves_no_temporary_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = store.write(jpeg(1), [(1, str(tmp_path / "a.jpg")), (2, str(tmp_path / "b.jpg"))])

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError):
        store.publish(files)
    assert list(tmp_path.iterdir()) == []


def test_files_are_synced_before_any_gets_its_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = store.write(jpeg(1), [(1, str(tmp_path / "a.jpg")), (2, str(tmp_path / "b.jpg"))])
    calls: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(fd: int) -> None:
        calls.append("sync")
        real_sync(fd)

    def replace(source: str, target: str) -> None:
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    assert store.publish(files) == set()
    assert calls == ["sync", "sync", "rename", "rename", "sync"]


def test_a_folder_under_a_final_name_costs_that_file_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    _, files = store.write(jpeg(1), [(1, str(tmp_path / "a.jpg")), (2, str(tmp_path / "b.jpg"))])
    assert store.publish(files) == {1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg"]


def test_only_its_own_leftovers_are_removed(store: Store, tmp_path: Path) -> None:
    store.write(jpeg(1), [(1, str(tmp_path / "a.jpg"))])
    (tmp_path / ".crawl-other-1").touch()
    (tmp_path / "mine.txt").touch()
    store.prepare_folder(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    store.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".crawl-other-1", "mine.txt"]
