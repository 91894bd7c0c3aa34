"""Addresses that are not public and names that are not plain names: none gets through."""

import asyncio
import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from crawl.safety import AllowedHosts, PublicResolver, RefusedError, check_url, is_public, refuse_name

NONE = AllowedHosts([])


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../a.jpg", "a/../../b.jpg", "/etc/passwd", "a/b.jpg", "..\\a.jpg", "C:a.jpg", "\\\\host\\a",
        "a\0.jpg", "a\n.jpg", "a\x7f.jpg", ".hidden", "a.jpg ", "a.", "  ", "con", "CON.jpg", "nul.tar.gz", "Com1.jpg",
        "LPT9", "com¹.jpg", "aux .jpg", "a" * 252 + ".jpg", "é" * 126 + ".jpg", "a?.jpg", 'a".jpg', "\ud83d.jpg",
    ],
)  # fmt: skip
def test_names_that_are_refused(name: str) -> None:
    assert refuse_name(name)


@pytest.mark.parametrize(
    "name", ["B001_0.jpg", "0306406152_3.jpg", "a..b.jpg", "é.jpg", "console.jpg", "com10.jpg", "a" * 251 + ".jpg"]
)
def test_names_that_are_taken(name: str) -> None:
    assert refuse_name(name) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a", "http://127.1/a", "http://2130706433/a", "http://0x7f000001/a", "http://0177.0.0.1/a",
        "http://0/a", "http://10.0.0.1/a", "http://172.16.0.1/a", "http://192.168.1.1/a", "http://169.254.169.254/a",
        "http://100.64.0.1/a", "http://224.0.0.1/a", "http://255.255.255.255/a", "http://198.18.0.1/a",
        "http://[::1]/a", "http://[::]/a", "http://[fe80::1]/a", "http://[fe80::1%25eth0]/a", "http://[fc00::1]/a",
        "http://[::ffff:127.0.0.1]/a", "http://[::ffff:10.0.0.1]/a", "http://[2002:7f00:1::]/a",
        "http://[64:ff9b::a00:1]/a", "http://[ff02::1]/a", "http://[2001:db8::1]/a",
        "ftp://example.com/a", "file:///etc/passwd", "data:image/png;base64,AA", "javascript:1", "//example.com/a",
        "http:///a", "http://", "example.com/a.jpg", "http://user:secret@example.com/a", "http://example.com:99999/a",
        "http://[::1/a", "gopher://example.com", "http://example.com/" + "a" * 9000, "",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        check_url(url, NONE)


@pytest.mark.parametrize(
    "url",
    ["https://m.media-amazon.com/images/I/51I-ZKFJ66S._AC_.jpg", "http://8.8.8.8/a", "http://[2606:4700::1111]/a",
     "HTTP://EXAMPLE.COM:8080/a?b=c", "https://münchen.example/a", "http://[64:ff9b::808:808]/a"],
)  # fmt: skip
def test_urls_that_may_be_asked(url: str) -> None:
    check_url(url, NONE)


def test_percent_escapes_reach_the_server_as_they_are() -> None:
    plain = "https://h.example/I/51%2BxY._AC_%2C.jpg?key=a%2Fb"
    assert str(check_url(plain, NONE)) == plain
    assert str(check_url("https://h.example/ä b.jpg", NONE)) == "https://h.example/%C3%A4%20b.jpg"


def test_an_allowed_host_with_a_port_is_allowed_at_that_port_alone() -> None:
    allowed = AllowedHosts(["127.0.0.1:8080", "[::1]:90", "10.0.0.1"])
    check_url("http://127.0.0.1:8080/a", allowed)
    check_url("http://[::1]:90/a", allowed)
    check_url("https://10.0.0.1/a", allowed)
    for url in ("http://127.0.0.1/a", "http://127.0.0.1:8081/a", "http://127.0.0.2:8080/a", "http://[::1]/a"):
        with pytest.raises(RefusedError):
            check_url(url, allowed)


@pytest.mark.parametrize(("address", "public"), [("1.1.1.1", True), ("127.0.0.1", False), ("::ffff:1.1.1.1", True)])
def test_is_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


class Names(AbstractResolver):
    """A name server of one name."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every name has the addresses."""
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


def test_a_name_with_a_private_address_is_refused() -> None:
    async def ask(*addresses: str, allow: str = "other.example") -> list[str]:
        resolver = PublicResolver(AllowedHosts([allow]), Names(*addresses))
        return [result["host"] for result in await resolver.resolve("rebind.example", 80)]

    for address in ("127.0.0.1", "10.0.0.1", "fe80::1%eth0", "::1", "169.254.169.254"):
        with pytest.raises(RefusedError):
            asyncio.run(ask(address))
    assert asyncio.run(ask("10.0.0.1", "1.1.1.1")) == ["1.1.1.1"]
    assert asyncio.run(ask("127.0.0.1", allow="rebind.example:80")) == ["127.0.0.1"]
    with pytest.raises(RefusedError):
        asyncio.run(ask("127.0.0.1", allow="rebind.example:81"))
