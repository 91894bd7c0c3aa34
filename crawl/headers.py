"""What an answer's headers say: whether its body is whole, when and where to ask again, and what its use may be."""

import email.utils
import re
import time
from dataclasses import dataclass

from multidict import CIMultiDict, CIMultiDictProxy

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

LONGEST_VALIDATOR = 1024  # characters; a longer one is not kept


@dataclass(frozen=True, slots=True)
class Validators:
    """What a host knows an answer by (RFC 9110, 8.8): sent back, they ask for the body only if it has changed."""

    etag: str | None = None
    last_modified: str | None = None

    def conditions(self) -> dict[str, str]:
        """The headers of a request that a host answers with 304 while nothing has changed."""
        pairs = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in pairs.items() if value}


def validators_of(headers: Headers) -> Validators:
    """ETag and Last-Modified of an answer, as far as they can be kept and sent back."""
    found = (headers.get(name, "").strip() for name in ("ETag", "Last-Modified"))
    return Validators(*(text if 0 < len(text) < LONGEST_VALIDATOR and text.isascii() and text.isprintable() else None
                        for text in found))  # fmt: skip


def promises_a_whole_body(status: int, headers: Headers) -> bool:
    """Whether a status is a success with a body: any of 200 to 299, a 206 only if it holds all bytes."""
    if status == 206:
        first, last, size = re.findall(r"\d+", headers.get("Content-Range", "")) or ("0", "0", "1")
        return first == "0" and int(last) + 1 == int(size)
    return 200 <= status < 300 and status not in {204, 205}


def as_written(location: str) -> str:
    """A Location header's text; bytes that are no UTF-8, which aiohttp gives as surrogates, get escapes."""
    return re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", location.strip())


def retry_after_seconds(value: str | None, date: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date (then against the answer's own Date,
    so that a wrong clock on either side does no harm). None if there is none that can be read."""
    if not value:
        return None
    try:
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(value).timestamp()
        now = email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, until - now)


def forbids_training(headers: list[str], user_agent: str) -> bool:
    """Whether an X-Robots-Tag says `noai` or `noimageai` to everybody or to this agent's name."""
    name = user_agent.split("/")[0].strip().lower()
    for header in headers:
        agent, colon, rules = header.lower().partition(":")
        if not colon or "," in agent or agent.strip() == "unavailable_after":
            rules = header.lower()
        elif agent.strip() not in {name, "*"}:
            continue
        if {"noai", "noimageai"} & {rule.strip() for rule in rules.split(",")}:
            return True
    return False
