"""What the crawler refuses: addresses that are not public, and file names that are not plain names."""

import functools
import ipaddress
import re
import socket
from collections.abc import Iterable

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from crawl.errors import UserError

LONGEST_NAME = 255  # bytes: ext4, XFS, APFS and NTFS take no more
LONGEST_URL = 8000  # characters: common servers take no more

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I | re.S)

_NOT_UNICODE = re.compile("[\ud800-\udfff\ufffd]")  # half a surrogate pair, or what the reader put in its place


class RefusedError(OSError):
    """A URL or an address that must not be asked; an OSError, so that aiohttp's connector passes it on."""


def refuse_name(name: str) -> str | None:
    """Why `name` must not become a file in the folder, or None if it may. Windows' rules hold everywhere,
    so that a folder filled on one machine can be copied to any other."""
    if name.startswith("."):  # also "." and "..", and the crawler's own temporary files
        return "the file name starts with a dot"
    if any(character in '/\\:*?"<>|' for character in name):
        return "the file name has a directory part or a reserved character"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "the file name has a control character"
    if name != name.rstrip(" .") or not name.strip():
        return "the file name is empty or ends with a dot or a space"
    if _DEVICES.fullmatch(name):
        return "the file name is a device's"
    if _NOT_UNICODE.search(name):
        return "the file name is not Unicode"
    length = len(name.encode())
    return f"the file name is longer than {LONGEST_NAME} bytes" if length > LONGEST_NAME else None


class AllowedHosts:
    """The hosts that may be asked although their addresses are private, each with one port or with all."""

    def __init__(self, named: Iterable[str]) -> None:
        """`named`: HOST, HOST:PORT, [IPv6] or [IPv6]:PORT. Raises UserError on anything else."""
        self._pairs: set[tuple[str, int | None]] = set()
        for text in named:
            bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
            try:
                url = URL(f"http://[{text}]" if bare_ipv6 else f"http://{text}")
                host, port = url.host, url.explicit_port
            except ValueError:
                host, port = None, None
            if not host or url.path not in {"", "/"} or url.user:
                raise UserError(f"--allow-host is {text!r}: give HOST or HOST:PORT, like localhost:8080.")
            self._pairs.add((host.lower().rstrip("."), port))

    def __contains__(self, pair: tuple[str, int]) -> bool:
        host, port = pair[0].lower().rstrip("."), pair[1]
        return (host, port) in self._pairs or (host, None) in self._pairs


def parse_url(text: str) -> URL:
    """A URL with its escapes as they were written, since some servers tell `%2C` from a comma; what is not
    plain ASCII gets the escapes that it needs. Raises ValueError."""
    return URL(text, encoded=text.isascii() and text.isprintable() and " " not in text)


def check_url(text: str, allowed: AllowedHosts) -> URL:
    """Parse a URL, and refuse it unless it is http(s) and its host is a name or an allowed or public address.

    Names are looked at again by `PublicResolver` once their addresses are known. Raises RefusedError.
    """
    if len(text) > LONGEST_URL:
        raise RefusedError(f"the URL is longer than {LONGEST_URL} characters")
    try:
        url = parse_url(text)
        host, port = url.host, url.port
    except (ValueError, UnicodeError) as error:
        raise RefusedError(f"not a URL: {error}") from error
    if url.scheme not in {"http", "https"}:
        raise RefusedError(f"the scheme is not http or https: {url.scheme[:20]!r}")
    if not host or not port:
        raise RefusedError("the URL names no host")
    if url.user is not None or url.password is not None:
        raise RefusedError("the URL holds a user name or a password")
    address = _literal_address(host)
    if address is not None and (host, port) not in allowed and not is_public(address):
        raise RefusedError(f"not a public address: {host} (--allow-host {host}:{port} would allow it)")
    return url


@functools.lru_cache(1024)
def _literal_address(host: str) -> Address | None:
    """The address that a URL's host spells out, the old forms too (`127.1`, `0x7f000001`, `2130706433`)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def is_public(address: Address) -> bool:
    """Whether `address` is on the open internet, seen through the IPv6 forms that carry an IPv4 one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


class PublicResolver(AbstractResolver):
    """Looks names up and passes only public addresses on. aiohttp connects to exactly what it is given here,
    so there is no second look-up between the check and the connection."""

    def __init__(self, allowed: AllowedHosts, resolver: AbstractResolver | None = None) -> None:
        self._allowed = allowed
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises RefusedError if none may be asked, OSError if it has none."""
        found = await self._resolver.resolve(host, port, family)
        if (host, port) in self._allowed:
            return found
        public = [result for result in found if is_public(ipaddress.ip_address(result["host"].split("%")[0]))]
        if found and not public:
            raise RefusedError(
                f"not a public address: {host} is {found[0]['host']} (--allow-host {host}:{port} would allow it)"
            )
        return public

    async def close(self) -> None:
        """Close the resolver that is asked."""
        await self._resolver.close()
