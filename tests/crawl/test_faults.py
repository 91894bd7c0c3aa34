"""Every fault that a server can show, over real sockets: what is obtainable arrives, nothing else is left."""

import itertools
import time

import pytest

from crawl.errors import UserError
from tests.crawl import fault_server as reply
from tests.crawl.conftest import CrawlFolder
from tests.crawl.fault_server import FaultServer
from tests.crawl.images import blank_png, decodes, encode, image, jpeg

GOOD = jpeg(1, side=160)
HTML = b"<!DOCTYPE html><html><body>no such image</body></html>"


def obtainable(server: FaultServer) -> dict[str, str]:
    """Item: URL whose image can be had, at once or by another try."""
    again = reply.answer(body=GOOD)
    scripts: dict[str, tuple[reply.Reply, ...]] = {
        "plain": (again,),
        "chunked": (reply.chunked(GOOD),),
        "until-close": (reply.until_close(GOOD),),
        "gzip": (reply.gzipped(GOOD),),
        "gzip-cut-once": (reply.gzipped(GOOD, cut=30), again),
        "wrong-type": (reply.answer(body=GOOD, content_type="text/plain"),),
        "png": (reply.answer(body=encode(image(2), "PNG"), content_type="image/png"),),
        "webp-as-jpeg": (reply.answer(body=encode(image(3), "WEBP")),),
        "gif": (reply.answer(body=encode(image(4), "GIF")),),
        "cmyk": (reply.answer(body=jpeg(5, mode="CMYK")),),
        "short-by-length-once": (reply.short_by_length(GOOD), again),
        "short-by-chunk-once": (reply.short_by_chunk(GOOD), again),
        "cut-jpeg-once": (reply.answer(body=GOOD[: len(GOOD) // 2]), again),
        "cut-and-close-once": (reply.until_close(GOOD[:-300]), again),
        "html-once": (reply.answer(body=HTML), again),
        "empty-once": (reply.answer(body=b""), again),
        "silent-once": (reply.silence(), again),
        "reset-once": (reply.reset(), again),
        "reset-twice": (reply.reset(), reply.reset(), again),
        "redirect": (reply.redirect("/plain"),),
        "redirect-twice": (reply.redirect("/redirect", 308),),
        "retry-after-seconds": (reply.unavailable(503, 1), again),
        "retry-after-date": (reply.unavailable(503, 2, as_date=True), again),
        "too-many-once": (reply.unavailable(429, 1), again),
        "robots-other-agent": (reply.answer(body=GOOD, X_Robots_Tag="otherbot: noai"),),
        "robots-noindex": (reply.answer(body=GOOD, X_Robots_Tag="noindex, nofollow"),),
    }
    for status in (408, 429, 500, 502, 503, 504):
        scripts[f"{status}-once"] = (reply.answer(status), again)
    return {name: server.script(f"/{name}", *replies) for name, replies in scripts.items()}


def unobtainable(server: FaultServer) -> dict[str, tuple[str, str, str, int | None]]:
    """Item: URL whose image cannot be had, its journal state, a word of its reason, requests for it."""
    url, script = server.url, server.script
    for number in range(12):
        script(f"/hop{number}", reply.redirect(f"/hop{number + 1}"))
    return {
        "404": (url("/404"), "permanent", "404", 1),
        "410": (script("/410", reply.answer(410)), "permanent", "410", 1),
        "403": (script("/403", reply.answer(403)), "permanent", "403", 1),
        "503": (script("/503", reply.answer(503)), "transient", "503", 3),
        "html": (script("/html", reply.answer(body=HTML)), "permanent", "HTML", 2),
        "cut": (script("/cut", reply.answer(body=GOOD[:-900])), "permanent", "damaged", 2),
        "cut-closed": (script("/cut-closed", reply.answer(body=GOOD[:2000] + b"\xff\xd9")), "permanent", "damaged", 2),
        "no-end": (script("/no-end", reply.answer(body=GOOD[:-2])), "permanent", "damaged", 2),
        "short": (script("/short", reply.short_by_length(GOOD)), "transient", "short", 3),
        "short-chunk": (script("/short-chunk", reply.short_by_chunk(GOOD)), "transient", "short", 3),
        "empty": (script("/empty", reply.answer(body=b"")), "permanent", "empty", 2),
        "drip": (script("/drip", reply.drip(GOOD, 0.1)), "permanent", "time limit", 1),
        "silent": (script("/silent", reply.silence()), "transient", "silent", 3),
        "endless": (script("/endless", reply.endless()), "permanent", "cap", 1),
        "large": (script("/large", reply.answer(body=GOOD + bytes(3_000_000))), "permanent", "cap", 1),
        "gzip-bomb": (script("/gzip-bomb", reply.gzipped(bytes(30_000_000))), "permanent", "cap", 1),
        "brotli": (script("/br", reply.answer(body=b"\x0b\x02", Content_Encoding="br")), "permanent", "encoding", 1),
        "bomb": (script("/bomb", reply.answer(body=blank_png(20_000))), "permanent", "pixels", 2),
        "loop": (script("/loop", reply.redirect("/loop")), "permanent", "redirects", 6),
        "long-chain": (url("/hop0"), "permanent", "redirects", 1),
        "no-location": (script("/no-location", reply.answer(302)), "permanent", "redirect", 6),
        "to-private": (script("/to-private", reply.redirect("http://10.1.2.3/a.jpg")), "refused", "public", 1),
        "to-metadata": (
            script("/to-metadata", reply.redirect("http://169.254.169.254/latest")), "refused", "public", 1
        ),
        "to-loopback": (
            script("/to-loopback", reply.redirect(f"http://127.0.0.2:{server.port}/plain")), "refused", "public", 1
        ),
        "to-port": (script("/to-port", reply.redirect("http://127.0.0.1:9/a.jpg")), "refused", "public", 1),
        "to-file": (script("/to-file", reply.redirect("file:///etc/passwd")), "refused", "scheme", 1),
        "resets": (script("/resets", reply.reset()), "transient", "connection", None),
        "private": ("http://192.168.0.1/a.jpg", "refused", "public", None),
        "ftp": ("ftp://example.com/a.jpg", "refused", "scheme", None),
        "noai": (script("/noai", reply.answer(body=GOOD, X_Robots_Tag="noai")), "refused", "X-Robots", 1),
    }  # fmt: skip


def test_every_obtainable_image_arrives_and_nothing_else(folder: CrawlFolder, server: FaultServer) -> None:
    good, bad = obtainable(server), unobtainable(server)
    folder.want(good | {name: case[0] for name, case in bad.items()})
    status = folder.crawl("--tries", "3", "--max-bytes", "2000000", "--max-pixels", "50000000")

    assert folder.files() == {f"{name}_0.jpg" for name in good}
    for path in folder.out.iterdir():
        data = path.read_bytes()
        assert data.startswith(b"\xff\xd8\xff"), path.name
        assert decodes(data), path.name
    assert (folder.out / "plain_0.jpg").read_bytes() == GOOD, "a JPEG's bytes are kept as they came"
    rows = folder.rows()
    for name, url in good.items():
        assert rows[url]["state"] == "done", (name, rows[url])
    for name, (url, state, word, requests) in bad.items():
        row = rows[url]
        assert row["state"] == state, (name, row)
        assert word in row["reason"], (name, row)
        if requests is not None:
            assert server.asked(url.removeprefix(server.url(""))) == requests, name
    assert {line["url"] for line in folder.failures()} == {case[0] for case in bad.values()}
    assert status == 3, "transient failures remain"
    assert server.asked("/latest") == 0


def test_no_retry_comes_before_its_retry_after(folder: CrawlFolder, server: FaultServer) -> None:
    waits = {"/a": 1.0, "/b": 1.5, "/c": 2.0}
    good = reply.answer(body=GOOD)
    folder.want({
        "a": server.script("/a", reply.unavailable(503, 1), good),
        "b": server.script("/b", reply.unavailable(429, 1.5), good),
        "c": server.script("/c", reply.unavailable(503, 3, as_date=True), good),
    })  # fmt: skip
    assert folder.crawl() == 0
    for path, wait in waits.items():
        first, second = (request.time for request in server.requests if request.path == path)
        assert second - first >= wait


def test_retry_after_is_honoured_up_to_its_cap(folder: CrawlFolder, server: FaultServer) -> None:
    folder.want({"a": server.script("/a", reply.unavailable(503, 3600), reply.answer(body=GOOD))})
    started = time.monotonic()
    assert folder.crawl("--retry-after-cap", "1") == 0
    assert 1 <= time.monotonic() - started < 5


def test_a_host_that_allows_300_a_second_gives_every_image(folder: CrawlFolder, server: FaultServer) -> None:
    stamps: list[float] = []
    told: dict[str, float] = {}
    early: list[str] = []
    refused = itertools.count()

    def limited(path: str) -> reply.Reply | None:
        now = time.monotonic()
        if now < told.get(path, 0.0):
            early.append(path)
        while stamps and now - stamps[0] > 1.0:
            stamps.pop(0)
        if len(stamps) >= 300:
            told[path] = now + 1.0
            next(refused)
            return reply.unavailable(429, 1)
        stamps.append(now)
        return None

    server.answer_all = limited
    good = reply.answer(body=GOOD)
    folder.want({str(number): server.script(f"/{number}", good) for number in range(900)})
    assert folder.crawl() == 0
    assert len(folder.stored()) == 900
    assert next(refused) > 0, "the server never had to refuse: the test shows nothing"
    assert next(refused) < 300, "a third of the requests were refused: the crawler does not slow down"
    assert early == []


def test_a_server_that_dies_midway_and_comes_back(folder: CrawlFolder) -> None:
    scripts = {f"/{number}": reply.answer(body=jpeg(number)) for number in range(300)}
    with FaultServer(latency=0.02) as first:
        folder.server = first
        folder.want({path[1:]: first.script(path, answer) for path, answer in scripts.items()})
        running = folder.start("--in-flight", "8")
        while len(first.requests) < 60:
            time.sleep(0.01)
    time.sleep(3.0)  # longer than five tries of one URL take
    with FaultServer(port=first.port) as second:
        for path, answer in scripts.items():
            second.script(path, answer)
        assert running.wait(60) == 0, running.communicate()[0]
    assert len(folder.stored()) == 300


def test_a_host_that_stays_down_is_left_for_another_run(folder: CrawlFolder, server: FaultServer) -> None:
    dead = "http://127.0.0.1:9"
    urls = {f"dead{number}": f"{dead}/{number}" for number in range(300)}
    folder.want(urls | {"good": server.script("/good", reply.answer(body=GOOD))})
    started = time.monotonic()
    assert folder.crawl("--allow-host", "127.0.0.1:9", "--host-patience", "1.5") == 3
    assert time.monotonic() - started < 10
    assert folder.stored() == {"good_0.jpg"}
    assert {row["state"] for url, row in folder.rows().items() if url.startswith(dead)} == {"transient"}


def test_the_window_shrinks_when_a_host_says_503_often_and_grows_again(
    folder: CrawlFolder, server: FaultServer
) -> None:
    server.latency = 0.01
    over: list[int] = []

    def overloaded(path: str) -> reply.Reply | None:
        if server.busy > 12:
            over.append(1)
            return reply.unavailable(503, 0.1)
        return None

    server.answer_all = overloaded
    folder.want({str(number): server.script(f"/{number}", reply.answer(body=GOOD)) for number in range(600)})
    assert folder.crawl("--tries", "20") == 0
    assert len(folder.stored()) == 600
    assert 0 < len(over) < 400


@pytest.mark.parametrize("value", ["host:port", "http://host", "a/b", ""])
def test_allow_host_that_names_no_host_is_refused(value: str) -> None:
    from crawl.safety import AllowedHosts

    with pytest.raises(UserError, match="--allow-host"):
        AllowedHosts([value])
