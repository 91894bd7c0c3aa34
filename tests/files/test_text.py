"""The one text reader and the one writer: encodings, halves of emoji, what cannot be read, and what a writer leaves."""

import gzip
import io
import os
import resource
import signal
from pathlib import Path

import pytest

from lavic.errors import UserError
from lavic.files import clean, read_text, write_text, writing, writing_bytes

TEXT = "Tasse à café 😀\nzweite Zeile\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le-bom", "utf-16-be-bom"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_of_every_encoding_is_the_same_text(tmp_path: Path, encoding: str, ends: str, packed: bool) -> None:
    bom = {"utf-16-le-bom": b"\xff\xfe", "utf-16-be-bom": b"\xfe\xff"}.get(encoding, b"")
    data = bom + TEXT.replace("\n", ends).encode(encoding.removesuffix("-bom"))
    path = tmp_path / "conversation.txt"  # the name says nothing of gzip
    path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    assert read_text(path) == TEXT
    assert read_text(io.BytesIO(path.read_bytes())) == TEXT


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (b"a \xed\xa0\xbd b", "a \ufffd b"),  # the first half of an emoji, as some programs write it
        (b"\xed\xb8\x80", "\ufffd"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "😀"),  # both halves, each on its own
        ("a \ud83d b".encode("utf-16", "surrogatepass"), "a \ufffd b"),
    ],
)
def test_half_an_emoji_is_replaced(tmp_path: Path, data: bytes, read: str) -> None:
    (tmp_path / "a").write_bytes(data)
    assert read_text(tmp_path / "a") == read
    assert clean(read).encode("utf-8")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("eins\nzwei\ncafé".encode("latin-1"), "Line 3 of .*is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "Line 1 of .*is not UTF-8"),
        (gzip.compress(TEXT.encode() * 999, mtime=0)[:-30], "gzip file that is cut"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-6] + b"\0\0\0\0\0\0", "gzip file that is cut or damaged"),
        (TEXT.encode("utf-16")[:-1], "not text in UTF-8 or UTF-16"),
        (b"PK\x03\x04 and so on", "a zip archive"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "given.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=said) as error:
        read_text(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_text(tmp_path / "nowhere")


def test_what_cannot_be_encoded_does_not_fail_a_writer(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x \ud83d y 😀")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "x \ufffd y 😀"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_a_writer_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with writing(path) as stream:
            stream.write("new")
            stream.flush()
            assert path.read_text() == "old", "until the end a reader sees the old file"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_disk_that_takes_no_more_is_named(tmp_path: Path) -> None:
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as error:
            write_text(tmp_path / "long.txt", "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal_before)
    assert error.value.filename == str(tmp_path / "long.txt")
    assert not list(tmp_path.iterdir())


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real.txt")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "x"
    with writing_bytes(Path(os.devnull)) as stream:
        stream.write(b"x")
    assert Path(os.devnull).is_char_device()
