"""One run after another: what is fetched, what is trusted, what is said."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crawl.cli import main, make_parser, parse
from crawl.errors import UserError
from tests.crawl import fault_server as reply
from tests.crawl.conftest import CrawlFolder
from tests.crawl.fault_server import FaultServer
from tests.crawl.images import encode, image, jpeg

GOOD = jpeg(1)


def images(server: FaultServer, number: int) -> dict[str, str]:
    """Items whose images are all well served."""
    return {f"B{n}": server.script(f"/{n}", reply.answer(body=jpeg(n))) for n in range(number)}


def test_a_second_run_fetches_only_what_is_missing(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want(images(server, 20) | {"gone": server.url("/gone"), "busy": server.script("/busy", reply.answer(503))})
    assert folder.crawl("--tries", "2") == 3
    (folder.out / "B3_0.jpg").unlink()
    (folder.out / "B4_0.jpg").write_bytes(b"")
    server.requests.clear()
    server.script("/busy", reply.answer(body=GOOD))
    assert folder.crawl() == 0
    assert {request.path for request in server.requests} == {"/3", "/4", "/busy"}
    assert (folder.out / "B4_0.jpg").read_bytes() == jpeg(4)
    server.requests.clear()
    server.script("/gone", reply.answer(body=GOOD))
    assert folder.crawl() == 0
    assert server.requests == []
    assert folder.crawl("--retry-failed") == 0
    assert {request.path for request in server.requests} == {"/gone"}
    assert len(folder.stored()) == 22
    assert folder.failures() == []


def test_files_of_an_older_crawler_are_verified_once_and_repaired(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want(images(server, 5) | {"html": server.url("/no")})
    folder.out.mkdir()
    (folder.out / "B0_0.jpg").write_bytes(jpeg(0))
    (folder.out / "B1_0.jpg").write_bytes(jpeg(1)[:-500])
    (folder.out / "B2_0.jpg").write_bytes(b"")
    (folder.out / "B3_0.jpg").write_bytes(encode(image(3), "PNG"))
    (folder.out / "html_0.jpg").write_bytes(b"<html>")
    assert folder.crawl() == 0
    assert {request.path for request in server.requests} == {"/1", "/2", "/4", "/no"}
    assert folder.stored() == {f"B{n}_0.jpg" for n in range(5)}, "the HTML page is gone"
    assert (folder.out / "B1_0.jpg").read_bytes() == jpeg(1)
    assert (folder.out / "B3_0.jpg").read_bytes().startswith(b"\xff\xd8\xff"), "the PNG has become a JPEG"
    server.requests.clear()
    assert folder.crawl() == 0
    assert server.requests == []


def test_verify_finds_what_is_not_as_it_was_stored(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want(images(server, 6))
    assert folder.crawl() == 0
    same_size = bytearray(jpeg(2))
    same_size[len(same_size) // 2] ^= 0x55
    (folder.out / "B2_0.jpg").write_bytes(same_size)
    server.requests.clear()
    assert folder.crawl() == 0
    assert server.requests == [], "the size is the same: only --verify reads the file"
    assert folder.crawl("--verify") == 0
    assert [request.path for request in server.requests] == ["/2"]
    assert (folder.out / "B2_0.jpg").read_bytes() == jpeg(2)


def test_dry_run_changes_nothing(folder: CrawlFolder, server: FaultServer, capsys: pytest.CaptureFixture[str]) -> None:
    folder.want(images(server, 6))
    before = sorted(folder.root.rglob("*"))
    assert folder.crawl("--dry-run") == 0
    assert "6 to fetch" in capsys.readouterr().out
    assert sorted(folder.root.rglob("*")) == before
    assert folder.crawl() == 0
    (folder.out / "B2_0.jpg").unlink()
    (folder.out / "B3_0.jpg").write_bytes(b"x")
    journal = (folder.root / "crawl.sqlite").read_bytes()
    assert folder.crawl("--dry-run") == 0
    assert "4 stored, 1 to fetch, 1 found on disk" in capsys.readouterr().out
    assert (folder.root / "crawl.sqlite").read_bytes() == journal
    assert len(server.requests) == 6


def test_one_url_under_many_names_is_fetched_once(folder: CrawlFolder, server: FaultServer) -> None:
    url = server.script("/a", reply.answer(body=GOOD))
    folder.want({"one": url, "two": url, "three": url})
    assert folder.crawl() == 0
    folder.want({"one": url, "four": url})
    assert folder.crawl() == 0
    assert server.asked("/a") == 1
    assert {path.read_bytes() for path in folder.out.iterdir()} == {GOOD}
    assert len(folder.stored()) == 4


def test_a_name_whose_url_has_changed_is_fetched_anew(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want({"a": server.script("/old", reply.answer(body=jpeg(1)))})
    assert folder.crawl() == 0
    folder.want({"a": server.script("/new", reply.answer(body=jpeg(2)))})
    assert folder.crawl() == 0
    assert (folder.out / "a_0.jpg").read_bytes() == jpeg(2)


def test_bad_names_and_clashes_are_listed(folder: CrawlFolder, server: FaultServer) -> None:
    url = server.script("/a", reply.answer(body=GOOD))
    source = folder.root / "meta.jsonl"
    records = [
        {"image": url, "image_name": "../evil.jpg"},
        {"image": url, "image_name": "ok.jpg"},
        {"image": server.script("/b", reply.answer(body=GOOD)), "image_name": "ok.jpg"},
        {"image": "http://h/\ud83d", "image_name": "half.jpg"},
        {"image": None, "image_name": "none.jpg"},
    ]
    source.write_text("".join(json.dumps(record) + "\n" for record in records) + "{broken\n")
    folder.source = source
    assert folder.crawl() == 0
    assert folder.stored() == {"ok.jpg"}
    assert not (folder.root / "evil.jpg").exists()
    assert len(folder.failures()) == 5
    assert server.asked("/b") == 0


def test_shards_share_the_work_out(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want(images(server, 40))
    assert folder.crawl("--shard", "1/3") == 0
    first = len(folder.stored())
    assert 0 < first < 40
    assert folder.crawl("--shard", "2/3") == folder.crawl("--shard", "3/3") == 0
    assert len(folder.stored()) == 40
    assert len(server.requests) == 40
    assert (folder.root / "failures-2-of-3.jsonl").exists()


def test_default_sources_through_one_queue(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The slowest training image must not hold up the validation images."""
    monkeypatch.chdir(tmp_path)
    allow = ["--allow-host", f"127.0.0.1:{server.port}", "--backoff", "0.05"]
    (tmp_path / "data").mkdir()
    assert main(allow) == 2
    assert "No metadata file" in capsys.readouterr().err
    slow = server.script("/slow", reply.drip(jpeg(1, 32, quality=20), 0.02))
    line = {"image": server.script("/v", reply.answer(body=GOOD)), "image_name": "V_0.jpg"}
    (tmp_path / "data" / "item2meta_valid.jsonl").write_text(json.dumps(line) + "\n")
    assert main(allow) == 0, "a missing source is said and the other one goes on"
    assert capsys.readouterr().err.count("item2meta_train.json") == 1
    assert [path.name for path in (tmp_path / "data" / "valid_images").iterdir()] == ["V_0.jpg"]
    shutil.rmtree(tmp_path / "data" / "valid_images")
    (tmp_path / "data" / "crawl.sqlite").unlink()
    (tmp_path / "data" / "item2meta_train.json").write_text(json.dumps({"T": {"images": [{"large": slow}]}}))
    server.requests.clear()
    started = time.monotonic()
    assert main(allow) == 0
    asked = {request.path: request.time for request in server.requests}
    assert asked["/v"] - started < (time.monotonic() - started) / 2
    assert [path.name for path in (tmp_path / "data" / "train_images").iterdir()] == ["T_0.jpg"]
    assert main([*allow, "--train-only"]) == main([*allow, "--valid-only"]) == 0


def test_a_metadata_file_that_is_cut_is_wrong_input(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want(images(server, 10))
    folder.source.write_text(folder.source.read_text()[:-40])
    assert folder.crawl() == 2
    assert len(folder.stored()) == 9
    assert "not valid JSON" in folder.failures()[0]["reason"]


def test_the_rate_is_kept(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want(images(server, 30))
    assert folder.crawl("--rate", "20") == 0
    times = [request.time for request in server.requests]
    assert times[-1] - times[0] >= 29 / 20 * 0.95


def test_never_more_in_flight_than_asked_for(folder: CrawlFolder, server: FaultServer) -> None:
    server.latency = 0.02
    folder.want(images(server, 60))
    assert folder.crawl("--in-flight", "7") == 0
    assert server.most_busy == 7
    server.most_busy = 0
    folder.want({f"again{n}": server.script(f"/again{n}", reply.answer(body=GOOD)) for n in range(60)})
    assert folder.crawl("--per-host", "3") == 0
    assert server.most_busy == 3


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--shard", "0/3"], "--shard"),
        (["--shard", "4/3"], "--shard"),
        (["--shard", "half"], "--shard"),
        (["--train-only", "--valid-only"], "--train-only"),
        (["--source", "a.json"], "--out"),
        (["--in-flight", "0"], "--in-flight"),
        (["--in-flight", "many"], "in_flight"),
        (["--bogus"], "bogus"),
        (["--allow-host"], "--allow-host"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--jpeg-quality", "300"], "--jpeg-quality"),
        (["--rate", "-1"], "--rate"),
        (["--allow-host", "host:port"], "--allow-host"),
        (["--user-agent", "a\nb"], "--user-agent"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1


def test_options_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "crawl.yaml"
    file.write_text("in_flight: 32\nallow_host: ['localhost:8080', '[::1]:90']\ntrain_only: true\nrate: 5\n")
    settings = parse(["--config", str(file), "--in-flight", "8"])
    assert (settings.in_flight, settings.train_only, settings.rate) == (8, True, 5)
    assert settings.allow_host == ["localhost:8080", "[::1]:90"]
    file.write_text("in_flihgt: 32\n")
    with pytest.raises(UserError, match="in_flihgt"):
        parse(["--config", str(file)])


def test_list_options_may_be_repeated() -> None:
    sources = ["--source", "a.json", "--out", "a", "--source=b.jsonl", "--out", "b"]
    settings = parse([*sources, "--allow-host", "[::1]:90", "c"])
    assert [(str(source.file), str(source.out)) for source in settings.sources()] == [("a.json", "a"), ("b.jsonl", "b")]
    assert settings.allow_host == ["[::1]:90", "c"]


def test_help_gives_every_unit_and_default() -> None:
    text = " ".join(make_parser().format_help().split())
    for words in ("seconds", "bytes of one body", "pixels", "requests in flight", "default: 64", "default: 1/1"):
        assert words in text


def test_the_crawler_knows_nothing_of_torch() -> None:
    code = "import sys, crawl.cli; print(sorted({'torch', 'lavic.model', 'lavic.tasks'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
