"""What the progress display shows while a crawl runs."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """URLs by what became of them so far, of `wanted` in all; `bytes` of the fetched files."""

    wanted: int = 0
    present: int = 0
    given_up_before: int = 0
    fetched: int = 0
    adopted: int = 0
    failed: int = 0
    bytes: int = 0

    @property
    def finished(self) -> int:
        """URLs that nothing more will happen to in this run."""
        return self.present + self.given_up_before + self.fetched + self.adopted + self.failed
