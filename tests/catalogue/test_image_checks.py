"""Verdicts on images: what several threads find at the same time is all kept."""

import io
import json
import os
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from crawl.journal import Journal, State, Verdict
from crawl.sources import Wanted
from crawl.store import Store
from crawl.verify import ImageRules
from lavic.catalogue import image_checks
from lavic.catalogue.image_checks import ImageChecks
from lavic.catalogue.images import image_size


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


def crawled(root: Path, items: list[str], lying: str | None = None) -> Path:
    """A folder that the crawler filled, by its own store and journal; EXIF turns the image of `lying`."""
    folder = root / "train_images"
    folder.mkdir(parents=True)
    journal = Journal(root / "crawl.sqlite")
    store = Store(root / "crawl.sqlite", ImageRules(max_pixels=10**6, max_side=0, quality=90))
    journal.begin_run()
    key = journal.folder_key(folder)
    journal.want(key, [Wanted(f"http://h/{item}", f"{item}_0.jpg", item) for item in items])
    for row in journal.page(0, 100):
        exif = Image.Exif()
        if lying and lying in row.url:
            exif[0x0112] = 6
        stream = io.BytesIO()
        Image.new("RGB", (16, 8), (row.id * 20, 9, 9)).save(stream, "JPEG", exif=exif)
        image, files = store.write(stream.getvalue(), [(file.id, file.path) for file in row.files])
        store.publish(files)
        stored = [(file.file_id, file.size, file.sha256, file.mtime_ns) for file in files]
        size, sha256 = files[0].size, files[0].sha256
        journal.enter([
            Verdict(row.id, State.DONE, size=size, width=image.width, height=image.height, sha256=sha256, files=stored)
        ])  # fmt: skip
    journal.close()
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded."""
    names: list[str] = []

    def noted(path: Path) -> tuple[int, int]:
        names.append(path.name)
        return image_size(path)

    monkeypatch.setattr(image_checks, "image_size", noted)
    return names


def test_known_and_unknown_images_each_get_their_own_verdict(tmp_path: Path, decoded: list[str]) -> None:
    folder = crawled(tmp_path, ["B1", "B2"])
    Image.new("RGB", (7, 5)).save(folder / "new.jpg")
    (folder / "broken.jpg").write_bytes(b"no image")
    checks = ImageChecks(folder, tmp_path / "cache")
    names = ["new.jpg", "B2_0.jpg", "absent.jpg", "B1_0.jpg", "broken.jpg", "new.jpg"]
    found = checks.check_all(names)
    assert [found[0], *found[1:4:2], found[2], found[5]] == [(7, 5), (16, 8), (16, 8), "image missing", (7, 5)]
    assert isinstance(found[4], str)
    assert {"new.jpg", "broken.jpg"} == set(decoded)


def test_what_the_crawler_stored_is_not_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    folder = crawled(tmp_path / "data", ["A", "B", "C", "D", "E"], lying="D")
    Image.new("RGB", (5, 4)).save(folder / "own_0.jpg")
    os.utime(folder / "B_0.jpg", ns=(1, 1))  # copied: the same bytes at another time
    changed = (folder / "C_0.jpg").read_bytes()
    (folder / "C_0.jpg").write_bytes(b"xx" + changed[2:])  # as long as before, and damaged
    os.truncate(folder / "E_0.jpg", 100)
    checks = ImageChecks(folder, tmp_path / "cache")
    names = [f"{name}_0.jpg" for name in ("A", "B", "C", "D", "E", "own", "none")]
    assert checks.undecided(names) == [f"{name}_0.jpg" for name in ("B", "C", "E", "own")]
    assert {name[:-6]: checks.check(name) for name in names} == {
        "A": (16, 8), "B": (16, 8), "C": "image broken", "D": (8, 16), "E": "image broken", "own": (5, 4),
        "none": "image missing",
    }  # fmt: skip
    assert decoded == ["C_0.jpg", "E_0.jpg", "own_0.jpg"]


def test_a_journal_that_was_moved_with_its_folder_counts(tmp_path: Path, decoded: list[str]) -> None:
    crawled(tmp_path / "data", ["A", "B"])
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    checks = ImageChecks(tmp_path / "elsewhere" / "train_images", tmp_path / "cache")
    assert [checks.check(f"{name}_0.jpg") for name in "AB"] == [(16, 8)] * 2
    assert not decoded


@pytest.mark.parametrize("fault", ["version", "no journal", "another folder"])
def test_without_a_journal_that_speaks_of_the_folder_all_is_decoded(
    tmp_path: Path, decoded: list[str], fault: str
) -> None:
    folder = crawled(tmp_path / "data", ["A", "B"])
    if fault == "another folder":
        folder = folder.rename(folder.with_name("valid_images"))
    elif fault == "no journal":
        (tmp_path / "data" / "crawl.sqlite").write_bytes(b"no database" * 99)
    else:
        with closing(sqlite3.connect(tmp_path / "data" / "crawl.sqlite")) as database:
            database.execute("PRAGMA user_version = 1")
    checks = ImageChecks(folder, tmp_path / "cache")
    assert [checks.check(f"{name}_0.jpg") for name in "AB"] == [(16, 8)] * 2
    assert decoded == ["A_0.jpg", "B_0.jpg"]


@pytest.mark.parametrize("version", [1, 2])
def test_older_journals_are_taken_up(version: int, tmp_path: Path) -> None:
    """The first version had no times of change, the second no ETags: the crawler adds the columns and goes on."""
    folder = crawled(tmp_path / "data", ["A"])
    path = tmp_path / "data" / "crawl.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE url DROP COLUMN etag")
        database.execute("ALTER TABLE url DROP COLUMN last_modified")
        if version == 1:
            database.execute("ALTER TABLE file DROP COLUMN mtime_ns")
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
    journal = Journal(path)
    journal.begin_run()
    journal.want(journal.folder_key(folder), [Wanted("http://h/A", "A_0.jpg", "A")])
    [row] = journal.page(0, 10)
    assert row.files[0].size == (folder / "A_0.jpg").stat().st_size
    journal.enter([Verdict(row.id, State.DONE, files=[(row.files[0].id, 1, b"x", 2)])])
    journal.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT size, mtime_ns FROM file").fetchall() == [(1, 2)]
        assert database.execute("PRAGMA user_version").fetchone() == (3,)
