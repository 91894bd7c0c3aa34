"""Every option of the crawler, with its unit and its default: what the command line is made from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crawl.errors import UserError
from crawl.sources import Source

DATA = Path("data")


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _list(text: str) -> dict[str, str]:
    return {"help": f"{text}; one or more, may be repeated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One crawl. Contradictions raise UserError at construction."""

    train_only: bool = _option(False, "fetch the training images only")
    valid_only: bool = _option(False, "fetch the validation images only")
    source: list[str] = field(
        default_factory=list,
        metadata=_list("a metadata file, instead of the two default ones; each needs an --out"),
    )
    out: list[str] = field(default_factory=list, metadata=_list("the folder for the images of a --source"))
    first_image_only: bool = _option(False, "fetch each training item's first image only")
    shard: str = _option("1/1", "K/N: fetch the K-th of N parts, for several machines; parts go by URL")

    in_flight: int = _option(64, "requests in flight at once, in all")
    per_host: int = _option(
        0, "requests in flight to one host at most, 0 for as many as in all; fewer while it says 429 or 503"
    )
    rate: float = _option(0.0, "requests a second to one host, at most; 0 for no limit")
    connect_timeout: float = _option(10.0, "seconds for a connection to stand")
    silence_timeout: float = _option(20.0, "seconds without a byte after which a try has failed")
    total_timeout: float = _option(120.0, "seconds for one request in all; once spent, the URL is given up")
    tries: int = _option(5, "requests for one URL, the first one included")
    backoff: float = _option(0.5, "seconds before the second try, doubled for each further one, with jitter")
    retry_after_cap: float = _option(120.0, "seconds that a host's Retry-After is honoured at most")
    host_patience: float = _option(
        300.0, "seconds that a host may be out of reach before its images are left for another run"
    )

    allow_host: list[str] = field(
        default_factory=list,
        metadata=_list("HOST or HOST:PORT (that port alone) that may be asked although its address is private"),
    )
    max_bytes: int = _option(20_000_000, "bytes of one body, at most")
    max_pixels: int = _option(50_000_000, "pixels (width x height) of one image, at most")
    ignore_robots_tag: bool = _option(False, "fetch images whose X-Robots-Tag says noai or noimageai too")
    user_agent: str = _option(
        "LaViC-crawl/1.0", "how the crawler names itself; add an address where you can be reached"
    )

    max_side: int = _option(0, "pixels that an image's longer side is shrunk to; 0 keeps every size")
    jpeg_quality: int = _option(90, "quality (1..95) of images that have to be encoded anew")
    decode_processes: int = _option(0, "processes that verify images; 0 for one a processor core, 8 at most")

    journal: str = _option("", "the journal; by default crawl.sqlite beside the first image folder")
    refresh: bool = _option(False, "ask whether images that are there have changed, and fetch those that have")
    retry_failed: bool = _option(False, "ask for images that failed for good again, too")
    verify: bool = _option(False, "read and decode every file again; fetch those anew that are not as stored")
    dry_run: bool = _option(False, "say what would be done, and change nothing")

    def __post_init__(self) -> None:
        if self.train_only and self.valid_only:
            raise UserError("--train-only and --valid-only exclude each other: give one of them, or neither.")
        if self.source and (self.train_only or self.valid_only):
            raise UserError("--source names the sources itself: leave --train-only and --valid-only out.")
        if len(self.source) != len(self.out):
            raise UserError(f"There are {len(self.source)} --source but {len(self.out)} --out: give one for each.")
        for name in ("in_flight", "tries", "max_bytes", "max_pixels", "connect_timeout",
                     "silence_timeout", "total_timeout"):  # fmt: skip
            self._at_least(name, above=0)
        for name in ("per_host", "rate", "backoff", "retry_after_cap", "host_patience", "max_side",
                     "decode_processes"):  # fmt: skip
            self._at_least(name, above=-1)
        if not 1 <= self.jpeg_quality <= 95:
            raise UserError(f"--jpeg-quality is {self.jpeg_quality}: give a number from 1 to 95.")
        if not self.user_agent.isascii() or not self.user_agent.isprintable() or not self.user_agent.strip():
            raise UserError(f"--user-agent is {self.user_agent!r}: give printable ASCII characters.")
        self.shard_of()

    def _at_least(self, name: str, above: int) -> None:
        value = getattr(self, name)
        if not (value > 0 if above == 0 else value >= 0):
            bound = "more than 0" if above == 0 else "0 or more"
            raise UserError(f"--{name.replace('_', '-')} is {value}: give {bound}.")

    def shard_of(self) -> tuple[int, int]:
        """K and N of `shard`. Raises UserError."""
        part, slash, parts = self.shard.partition("/")
        if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
            raise UserError(f"--shard is {self.shard!r}: give K/N with K from 1 to N, for example 1/4.")
        return int(part), int(parts)

    def sources(self) -> list[Source]:
        """The metadata files and their folders."""
        if self.source:
            return [Source(Path(file), Path(out)) for file, out in zip(self.source, self.out, strict=True)]
        train = Source(DATA / "item2meta_train.json", DATA / "train_images")
        valid = Source(DATA / "item2meta_valid.jsonl", DATA / "valid_images")
        return [train] * (not self.valid_only) + [valid] * (not self.train_only)

    def journal_path(self) -> Path:
        """The journal's file; each shard has its own, so that shards can share a folder."""
        return Path(self.journal) if self.journal else self._beside_folders("crawl", ".sqlite")

    def failures_path(self) -> Path:
        """The list of what is missing and why, beside the journal."""
        if self.journal:
            return Path(self.journal).with_suffix(".failures.jsonl")
        return self._beside_folders("failures", ".jsonl")

    def _beside_folders(self, stem: str, suffix: str) -> Path:
        part, parts = self.shard_of()
        shard = f"-{part}-of-{parts}" if parts > 1 else ""
        return self.sources()[0].out.absolute().parent / f"{stem}{shard}{suffix}"
