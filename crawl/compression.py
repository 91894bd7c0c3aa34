"""Content-Encoding undone, as far as it is true: many servers name an encoding that the body does not have.

What the body's first bytes say counts before the label: an image's own signature under any label is an image.
"""

import zlib

IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF")
COMPRESSED = {"gzip", "x-gzip", "deflate"}
UNKNOWN_HERE = {"br", "zstd", "compress", "x-compress", "dcb", "dcz"}  # not asked for, and not undone


class CompressionError(Exception):
    """A compressed body that is damaged, or that nothing here decompresses; the message says which."""


class ShortError(CompressionError):
    """A compressed body that has not ended."""


class Inflater:
    """Undoes the encodings, never giving more than a little over `cap` bytes for one part."""

    def __init__(self, encodings: list[str], cap: int) -> None:
        """`encodings`: the values of Content-Encoding, each a list; names that are no compression count for nothing."""
        names = [name.strip().lower() for value in encodings for name in value.split(",")]
        self._layers = [_Layer(name, cap) for name in reversed(names) if name in COMPRESSED]
        self._foreign = next((name for name in names if name in UNKNOWN_HERE), None)
        self._head = b""

    def __call__(self, part: bytes) -> bytes:
        """The next part of the body as it was before its encoding. Raises CompressionError."""
        for layer in self._layers:
            part = layer(part)
        if len(self._head) < 8:
            self._head += part[:8]
        return part

    def finish(self) -> None:
        """Raises CompressionError if a stream has not ended, or the body is in an encoding that is not undone here."""
        for layer in self._layers:
            layer.finish()
        if self._foreign and not self._head.startswith(IMAGES):
            raise CompressionError(f"the body has an encoding not asked for: {self._foreign}")


class _Layer:
    """One compression, told from the first two bytes: gzip, zlib, deflate without a header, or none at all."""

    def __init__(self, name: str, cap: int) -> None:
        self._name, self._cap = name, cap
        self._head: bytes | None = b""  # until there are enough bytes to tell
        self._stream: zlib._Decompress | None = None

    def __call__(self, part: bytes) -> bytes:
        if self._head is not None:
            part = self._head + part
            if len(part) < 3:
                self._head = part
                return b""
            self._head = None
            self._stream = self._make_stream(part)
        return part if self._stream is None else self._inflated(part)

    def finish(self) -> None:
        if self._head or (self._stream is not None and not self._stream.eof):
            raise ShortError("the body is short")

    def _make_stream(self, head: bytes) -> "zlib._Decompress | None":
        if head.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        if head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0:  # RFC 1950's header
            return zlib.decompressobj()
        if self._name == "deflate" and not head.startswith((b"\xff\xd8\xff", b"\x89PN", b"GIF", b"RIF")):
            return zlib.decompressobj(-zlib.MAX_WBITS)
        return None

    def _inflated(self, part: bytes) -> bytes:
        assert self._stream is not None
        try:
            found = self._stream.decompress(part, self._cap + 1)
            while self._stream.unused_data.startswith(b"\x1f\x8b") and len(found) <= self._cap:  # one more gzip member
                rest = self._stream.unused_data
                self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
                found += self._stream.decompress(rest, self._cap + 1)
        except zlib.error as error:
            raise CompressionError("the compressed body is damaged") from error
        return found
