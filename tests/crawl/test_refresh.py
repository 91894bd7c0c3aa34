"""`crawl --refresh`: what has changed behind its URL is fetched again, what has not stays as it is.

And `crawl` after a feed moved its URLs about, and where nothing at all could be had.
"""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from crawl.headers import Validators, validators_of
from crawl.journal import Journal
from crawl.sources import Wanted
from lavic.catalogue.crawled_images import crawled_images
from tests.crawl import fault_server as reply
from tests.crawl.conftest import CrawlFolder
from tests.crawl.fault_server import FaultServer, Reply
from tests.crawl.images import jpeg

MONDAY, TUESDAY = "Mon, 30 Nov 2026 10:00:00 GMT", "Tue, 01 Dec 2026 10:00:00 GMT"


def conditions(server: FaultServer) -> list[dict[str, str]]:
    return [{k: v for k, v in request.headers.items() if k.startswith("if-")} for request in server.requests]


def state(path: Path) -> tuple[bytes, int, int]:
    return path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino


@pytest.mark.parametrize(
    ("before", "after", "sent"),
    [
        (reply.conditional(jpeg(1), '"a"'), reply.conditional(jpeg(2), '"b"'), {"if-none-match": '"a"'}),
        (
            reply.conditional(jpeg(1), "", MONDAY),
            reply.conditional(jpeg(2), "", TUESDAY),
            {"if-modified-since": MONDAY},
        ),
        (
            reply.conditional(jpeg(1), 'W/"a"', MONDAY),
            reply.conditional(jpeg(2), 'W/"b"', MONDAY),
            {"if-none-match": 'W/"a"', "if-modified-since": MONDAY},
        ),
        (reply.answer(body=jpeg(1)), reply.answer(body=jpeg(2)), {}),
    ],
    ids=["etag", "date", "both", "neither"],
)
def test_an_image_that_changed_behind_its_url_is_fetched_again(
    folder: CrawlFolder, server: FaultServer, before: Reply, after: Reply, sent: dict[str, str]
) -> None:
    folder.want({"a": server.script("/a", before)})
    assert folder.crawl() == 0
    stored = state(folder.out / "a_0.jpg")
    server.requests.clear()
    assert folder.crawl() == 0
    assert server.requests == [], "without --refresh nothing is asked that is there"
    assert folder.crawl("--refresh") == 0
    assert conditions(server) == [sent]
    assert state(folder.out / "a_0.jpg") == stored, "the same image: the file is not touched"
    server.script("/a", after)
    assert folder.crawl("--refresh") == 0
    assert (folder.out / "a_0.jpg").read_bytes() == jpeg(2)
    stored = state(folder.out / "a_0.jpg")
    assert folder.crawl("--refresh") == 0
    assert state(folder.out / "a_0.jpg") == stored
    [crawled] = crawled_images(folder.out).values()
    assert (crawled.size, crawled.mtime_ns) == (len(jpeg(2)), stored[1])


def test_all_names_of_a_url_change_together(folder: CrawlFolder, server: FaultServer) -> None:
    url = server.script("/a", reply.conditional(jpeg(1), '"a"'))
    folder.want({"one": url, "two": url})
    assert folder.crawl() == 0
    server.script("/a", reply.conditional(jpeg(2), '"b"'))
    assert folder.crawl("--refresh") == 0
    assert {path.read_bytes() for path in folder.out.iterdir()} == {jpeg(2)}
    assert server.asked("/a") == 2


def test_a_file_that_is_not_the_stored_one_is_asked_for_whole(folder: CrawlFolder, server: FaultServer) -> None:
    """Replaced by hand, even by one of as many bytes: a 304 would speak of the one that was stored."""
    folder.want({"a": server.script("/a", reply.conditional(jpeg(1), '"a"'))})
    assert folder.crawl() == 0
    path = folder.out / "a_0.jpg"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(jpeg(1)[:-1] + b"x")
    os.utime(path, ns=times)
    server.requests.clear()
    assert folder.crawl("--refresh") == 0
    assert conditions(server) == [{}]
    assert path.read_bytes() == jpeg(1)
    path.write_bytes(jpeg(5, 90))  # of another size: the crawler takes it up, and asks
    server.requests.clear()
    assert folder.crawl("--refresh") == 0
    assert conditions(server) == [{}]
    assert path.read_bytes() == jpeg(1)


@pytest.mark.parametrize(("failure", "status"), [(503, 3), (404, 2)])
def test_what_cannot_be_asked_again_stays_and_is_said(
    folder: CrawlFolder, server: FaultServer, failure: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.want({"a": server.script("/a", reply.conditional(jpeg(1), '"a"'))})
    assert folder.crawl() == 0
    stored = state(folder.out / "a_0.jpg")
    server.script("/a", reply.answer(failure))
    assert folder.crawl("--refresh", "--tries", "2") == status
    assert f"1 stored images could not be asked for again and stay as they are: HTTP status {failure}." in (
        " ".join(capsys.readouterr().err.split())
    )
    assert state(folder.out / "a_0.jpg") == stored
    assert folder.crawl() == 0, "it is there: the next run has nothing to do"
    assert folder.rows()[server.url("/a")]["etag"] == '"a"'
    folder.want({"a": server.url("/a"), "b": server.script("/b", reply.answer(body=jpeg(2)))})
    assert folder.crawl("--refresh", "--tries", "2") == (0 if failure == 404 else 3)


def test_where_a_redirect_leads_is_asked_without_conditions(folder: CrawlFolder, server: FaultServer) -> None:
    """An older image under another address would be taken for the one that is stored."""
    server.script("/first", reply.conditional(jpeg(1), "", TUESDAY))
    server.script("/second", reply.conditional(jpeg(2), "", TUESDAY))
    folder.want({"a": server.script("/a", reply.answer(302, Location="/first"))})
    assert folder.crawl() == 0
    server.script("/a", reply.answer(302, Location="/second"))
    assert folder.crawl("--refresh") == 0
    assert all(condition == {} for condition in conditions(server))
    assert (folder.out / "a_0.jpg").read_bytes() == jpeg(2)
    server.script("/a", reply.conditional(jpeg(3), "", TUESDAY))  # without a redirect, and then with one again
    assert folder.crawl("--refresh") == 0
    assert (folder.out / "a_0.jpg").read_bytes() == jpeg(3)
    server.script("/a", reply.answer(302, Location="/first"))
    assert folder.crawl("--refresh") == 0
    assert (folder.out / "a_0.jpg").read_bytes() == jpeg(1)


def test_304_that_nobody_asked_for_is_a_failure(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want({"a": server.script("/a", reply.answer(304))})
    assert folder.crawl() == 2
    assert folder.stored() == set()


def test_a_dry_run_says_what_would_be_asked(
    folder: CrawlFolder, server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.want({"a": server.script("/a", reply.conditional(jpeg(1), '"a"'))})
    assert folder.crawl() == 0
    folder.want({"a": server.url("/a"), "b": server.url("/b")})
    assert folder.crawl("--refresh", "--dry-run") == 0
    assert "0 stored, 1 stored and to be asked for again, 1 to fetch" in capsys.readouterr().out
    assert server.asked("/a") == 1


def test_a_journal_without_validators_fetches_once_more(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want({"a": server.script("/a", reply.conditional(jpeg(1), '"a"'))})
    assert folder.crawl() == 0
    with sqlite3.connect(folder.root / "crawl.sqlite") as database:
        database.execute("ALTER TABLE url DROP COLUMN etag")
        database.execute("ALTER TABLE url DROP COLUMN last_modified")
        database.execute("PRAGMA user_version = 2")
    database.close()
    stored = state(folder.out / "a_0.jpg")
    server.requests.clear()
    assert folder.crawl("--refresh") == 0
    assert folder.crawl("--refresh") == 0
    assert conditions(server) == [{}, {"if-none-match": '"a"'}]
    assert state(folder.out / "a_0.jpg") == stored


@pytest.mark.parametrize("text", ["", "x" * 2000, "\udcff", "a\nb"])
def test_what_cannot_be_sent_back_is_not_kept(text: str) -> None:
    from multidict import CIMultiDict

    assert validators_of(CIMultiDict({"ETag": text, "Last-Modified": MONDAY})) == Validators(None, MONDAY)


def test_a_new_first_image_moves_all_others_on(folder: CrawlFolder, server: FaultServer) -> None:
    urls = [server.script(f"/{n}", reply.answer(body=jpeg(n))) for n in range(3)]

    def feed(*places: int) -> None:
        folder.source.write_text(json.dumps({"a": {"images": [{"large": urls[n]} for n in places]}}))

    feed(0, 1)
    assert folder.crawl() == 0
    feed(2, 0, 1)
    assert folder.crawl() == 0
    assert [(folder.out / f"a_{i}.jpg").read_bytes() for i in range(3)] == [jpeg(2), jpeg(0), jpeg(1)]


def test_a_kill_after_a_url_has_changed_leaves_no_old_image_under_the_new_one(
    folder: CrawlFolder, server: FaultServer
) -> None:
    """Entered, and killed before anything else: the next run must not find the old file and take it up."""
    folder.want({"a": server.script("/old", reply.answer(body=jpeg(1)))})
    assert folder.crawl() == 0
    journal = Journal(folder.root / "crawl.sqlite")
    journal.begin_run()
    new = server.script("/new", reply.answer(body=jpeg(2)))
    journal.want(journal.folder_key(folder.out), [Wanted(new, "a_0.jpg", "a")])
    journal.close()
    folder.want({"a": new})
    assert folder.crawl() == 0
    assert (folder.out / "a_0.jpg").read_bytes() == jpeg(2)


def test_a_crawl_that_could_get_nothing_is_no_success(
    folder: CrawlFolder, server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every URL refused, since the server is on the own network; and every one gone."""
    folder.want({f"B{n}": server.script(f"/{n}", reply.answer(body=jpeg(n))) for n in range(3)})
    assert folder.crawl(allow=False) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"3 URLs were not asked: not a public address: 127.0.0.1 (--allow-host 127.0.0.1:{server.port}" in said
    assert "None of the 3 images could be had" in said
    assert server.requests == []
    assert folder.crawl() == 0
    assert folder.crawl(allow=False) == 0, "all of it is there"
    folder.want({"gone": server.url("/gone")})
    assert folder.crawl() == 2
    assert folder.crawl() == 2, "and still is not there"
    assert "None of the 1 images could be had" in capsys.readouterr().err
