"""Answers that break a rule of HTTP, or use a rare one, and that curl and browsers take: the image arrives."""

import gzip
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from crawl.cli import main
from tests.crawl.images import jpeg

GOOD = jpeg(1)
LENGTH = b"Content-Length: %d" % len(GOOD)
RAW_DEFLATE = zlib.compressobj(wbits=-15)
DEFLATED = RAW_DEFLATE.compress(GOOD) + RAW_DEFLATE.flush()


def answer(*headers: bytes, body: bytes = GOOD, status: bytes = b"HTTP/1.1 200 OK", length: bool = True) -> bytes:
    lines = [status, *headers, *([b"Content-Length: %d" % len(body)] if length else [])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


TAKEN = {
    **{
        f"label {label.decode() or 'empty'}": answer(b"Content-Encoding: " + label)
        for label in (
            b"",
            b"utf-8",
            b"none",
            b"identity",
            b"binary",
            b"aws-chunked",
            b"image/jpeg",
            b"identity, none",
            b"gzip",
            b"br",
            b"zstd",
            b"deflate",
            b"aws-chunked,gzip",
        )
    },
    "gzip": answer(b"Content-Encoding: GZIP", body=gzip.compress(GOOD)),
    "x-gzip": answer(b"Content-Encoding: x-gzip", body=gzip.compress(GOOD)),
    "gzip in two members": answer(
        b"Content-Encoding: gzip", body=gzip.compress(GOOD[:900]) + gzip.compress(GOOD[900:])
    ),
    "deflate as zlib": answer(b"Content-Encoding: deflate", body=zlib.compress(GOOD)),
    "deflate without a header": answer(b"Content-Encoding: deflate", body=DEFLATED),
    "gzip twice": answer(b"Content-Encoding: gzip, gzip", body=gzip.compress(gzip.compress(GOOD))),
    "gzip in two headers": answer(
        b"Content-Encoding: aws-chunked", b"Content-Encoding: gzip", body=gzip.compress(GOOD)
    ),
    **{f"status {code}": answer(status=b"HTTP/1.1 %d Fine" % code) for code in (201, 202, 203, 206, 226, 299)},
    "the whole range": answer(
        b"Content-Range: bytes 0-%d/%d" % (len(GOOD) - 1, len(GOOD)), status=b"HTTP/1.1 206 Partial Content"
    ),
    "a header of 60 KB": answer(b"Content-Security-Policy: " + b"x" * 60_000),
    "300 headers": answer(*(b"X-Header-%d: x" % number for number in range(300))),
    "both lengths": answer(b"Transfer-Encoding: chunked", LENGTH, body=chunked(GOOD), length=False),
    "the same length twice": answer(LENGTH),
    "a space before the colon": answer(b"Content-Length : %d" % len(GOOD), length=False),
    "bare line feeds": answer(b"Content-Type: image/jpeg").replace(b"\r\n", b"\n", 3),
    "no reason": answer(status=b"HTTP/1.1 200"),
    "HTTP/1.0": answer(status=b"HTTP/1.0 200 OK", length=False),
    "lower case": answer(b"content-length: %d" % len(GOOD), length=False),
    "a length that is none": answer(b"Content-Length: unknown", length=False),
    "no type and no length": answer(length=False),
    "the type of a page": answer(b"Content-Type: text/html; charset=utf-8"),
    "bytes over 127 in a header": answer(b"X-Name: caf\xe9"),
    "a header without a colon": answer(b"this is no header"),
    "a folded header": answer(b"X-Long: first\r\n second"),
}
LOCATIONS = {
    "relative": b"/good",
    "without a slash": b"good",
    "with a space": b"/with space",
    "in UTF-8": "/gut-für".encode(),
    "in Latin-1": b"/caf\xe9",
    "with a fragment": b"/good#there",
    "with spaces around": b"  /good  ",
}
REFUSED = {
    "no content": (answer(status=b"HTTP/1.1 204 No Content", body=b"", length=False), "204"),
    "a part": (answer(b"Content-Range: bytes 0-99/5000", status=b"HTTP/1.1 206 Partial Content"), "206"),
    "brotli": (answer(b"Content-Encoding: br", body=b"\x8b\x02\x80pressed"), "not asked for: br"),
    "short": (answer(b"Transfer-Encoding: chunked", LENGTH, body=chunked(GOOD)[:-900], length=False), "short"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n", "not HTTP"),
    "half a gzip": (answer(b"Content-Encoding: gzip", body=gzip.compress(GOOD)[:-40]), "short"),
}


class RawServer:
    """Sends the bytes that stand for a path, and closes."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
                if not request:
                    return
            connection.sendall(self.answers[request.split(b" ")[1].decode()])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


@pytest.fixture
def serve() -> Iterator[list[RawServer]]:
    servers: list[RawServer] = []
    yield servers
    for server in servers:
        server.socket.close()


def crawl(folder: Path, server: RawServer, paths: dict[str, str]) -> tuple[set[str], str]:
    """The items whose images were stored, and the list of failures."""

    urls = {f"I{number}": path for number, path in enumerate(paths.values())}
    items = {item: {"images": [{"large": f"http://127.0.0.1:{server.port}{path}"}]} for item, path in urls.items()}
    (folder / "m.json").write_text(json.dumps(items))
    main([
        "--source", str(folder / "m.json"), "--out", str(folder / "images"), "--tries", "2", "--backoff", "0.01",
        "--silence-timeout", "3", "--allow-host", f"127.0.0.1:{server.port}",
    ])  # fmt: skip
    stored = {name for number, name in enumerate(paths) if (folder / "images" / f"I{number}_0.jpg").exists()}
    for number, name in enumerate(paths):
        if name in stored:
            assert (folder / "images" / f"I{number}_0.jpg").read_bytes() == GOOD, name
    return stored, (folder / "failures.jsonl").read_text()


def test_odd_answers_with_a_whole_image_are_taken(tmp_path: Path, serve: list[RawServer]) -> None:
    paths = {name: f"/{number}" for number, name in enumerate(TAKEN)}
    serve.append(RawServer({paths[name]: data for name, data in TAKEN.items()}))
    stored, failures = crawl(tmp_path, serve[0], paths)
    assert not paths.keys() - stored, failures


def test_odd_redirects_are_followed(tmp_path: Path, serve: list[RawServer]) -> None:
    paths = {name: f"/{number}" for number, name in enumerate(LOCATIONS)}
    answers = {
        paths[name]: answer(b"Location: " + where, status=b"HTTP/1.1 302 Found", body=b"")
        for name, where in LOCATIONS.items()
    }
    goals = ["/good", "/with%20space", "/gut-f%C3%BCr", "/caf%E9"]
    serve.append(RawServer(answers | dict.fromkeys(goals, answer())))
    stored, failures = crawl(tmp_path, serve[0], paths)
    assert not paths.keys() - stored, failures


def test_what_is_not_whole_is_named(tmp_path: Path, serve: list[RawServer]) -> None:

    paths = {name: f"/{number}" for number, name in enumerate(REFUSED)}
    serve.append(RawServer({paths[name]: data for name, (data, _) in REFUSED.items()}))
    stored, failures = crawl(tmp_path, serve[0], paths)
    assert not stored
    reasons = {line["url"].rpartition("/")[2]: line["reason"] for line in map(json.loads, failures.splitlines())}
    for number, (name, (_, said)) in enumerate(REFUSED.items()):
        assert said in reasons[str(number)], name
