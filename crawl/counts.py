"""What the progress display shows while a crawl runs."""

from collections import Counter
from dataclasses import dataclass, field

from crawl.fetch import Kind


@dataclass(slots=True)
class Counts:
    """URLs by what became of them so far, of `wanted` in all; `bytes` of the fetched files."""

    wanted: int = 0
    present: int = 0
    given_up_before: int = 0
    fetched: int = 0
    adopted: int = 0
    failed: int = 0
    unchanged: int = 0  # asked again, and as they were
    unanswered: Counter[tuple[Kind, str]] = field(default_factory=Counter)  # asked again in vain: kind and reason
    bytes: int = 0

    @property
    def finished(self) -> int:
        """URLs that nothing more will happen to in this run."""
        asked = self.fetched + self.adopted + self.failed + self.unchanged + self.unanswered.total()
        return self.present + self.given_up_before + asked
