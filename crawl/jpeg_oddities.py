"""JPEGs that break a rule of the format and lack nothing: every viewer shows them whole, libjpeg with a warning.

The crawler takes libjpeg's warnings for errors, since most of them mean lost pixels. A JPEG that has one is written
anew here without what is known to be harmless, and is whole if *that* decodes without a warning. Nothing in here
decides that damage is harmless: what was lost stays lost, and the decoder says so again.

Marker codes and the layout of segments are those of ITU T.81, annex B.
"""

import re

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # restarts (D0 to D7) stand inside a scan
_SOI, _EOI, _SOS, _APP0 = 0xD8, 0xD9, 0xDA, 0xE0
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # SOF: baseline, extended, progressive; the last two with arithmetic coding
_SEQUENTIAL = {0xC0, 0xC1, 0xC9}
_TRANSFORMS = {3: (0, 1), 4: (0, 2)}  # Adobe's colour transforms by number of components; the last is the default


def without_oddities(data: bytes) -> bytes | None:
    """The JPEG without its harmless oddities; None if it has no frame, no scan or no end.

    Mended are: parameters of a sequential scan, which have one meaning only; bytes between the segments before the
    first scan; and the revision of JFIF and the colour transform of Adobe, if unknown. A file without its end marker
    is no such case: it was cut, if only by two bytes, and Pillow does not read it.
    """
    parts, at = [data[:2]], 2
    frame, components, scans = 0, 0, 0
    while found := _MARKER.search(data, at):
        if scans and found.start() > at:
            return None  # bytes between scans: a scan may have lost its place in them
        code, at = found[1][0], found.end()
        if code == _EOI:
            return _joined(parts, components) + data[at:] if frame and scans else None
        if code in range(0xD0, _SOI + 1) or code == 0x01:  # without a segment
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        segment = bytearray(data[at : at + length])
        if length < 2 or len(segment) < length:
            return None
        at += length
        if code in _FRAMES and length > 7:
            frame, components = code, segment[7]
        elif code == _APP0 and segment[2:7] == b"JFIF\0" and length > 7:
            segment[7] = 1
        elif code == _SOS:
            if frame in _SEQUENTIAL:
                segment[-3:] = b"\x00\x3f\x00"
            scans += 1
        parts.append(bytes([0xFF, code]) + segment)
        if code != _SOS:
            continue
        end = _END_OF_SCAN.search(data, at)
        if end is None:
            return None
        parts.append(data[at : end.start()])
        at = end.start()
    return None


def _joined(parts: list[bytes], components: int) -> bytes:
    """The file up to its end marker, with a colour transform that decoders know."""
    known = _TRANSFORMS.get(components)
    for place, part in enumerate(parts):
        is_adobe = part.startswith(b"\xff\xee\0\x0eAdobe") and len(part) == 16
        if is_adobe and known and part[-1] not in known:
            parts[place] = part[:-1] + bytes([known[-1]])
    return b"".join(parts) + b"\xff\xd9"
