"""`candidates: retrieved:K`: candidates found in the whole catalogue by each conversation's own words.

The ground truth is not looked at. `retrieved:K` searches titles and descriptions, `retrieved:K:titles` and
`retrieved:K:descriptions` one of them, by BM25; `python -m lavic retrieve` writes candidates found by embeddings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from lavic.catalogue.conversations import Conversation
from lavic.catalogue.items import Item
from lavic.errors import UserError
from lavic.retrieval.documents import Indexed
from lavic.retrieval.retriever import Retriever

NOTHING_MATCHES = "nothing in the catalogue matches"
BATCH = 64  # conversations searched for at a time


@dataclass(frozen=True, slots=True)
class Retrieved:
    """How many candidates a conversation gets, and from what they are found."""

    k: int
    indexed: Indexed

    @property
    def field(self) -> str:
        """The candidates' name in what a test writes."""
        return f"candidates_retrieved_{self.k}_{self.indexed}"

    @property
    def searched(self) -> str:
        """What is indexed, in words."""
        return "titles and descriptions" if self.indexed == "both" else self.indexed


def parse_retrieved(candidates: str) -> Retrieved | None:
    """What `retrieved:K` or `retrieved:K:INDEXED` asks for; None for the name of a field.

    Raises:
        UserError: it begins so, but K is no number above 0, or what is indexed is unknown.
    """
    name, colon, rest = candidates.partition(":")
    if name != "retrieved" or not colon:
        return None
    number, _, indexed = rest.partition(":")
    if not number.isascii() or not number.isdigit() or int(number) < 1 or (indexed or "both") not in get_args(Indexed):
        raise UserError(
            f"candidates is '{candidates}'; give retrieved:K or retrieved:K:titles, with K at least 1 and one of "
            f"{', '.join(get_args(Indexed))}."
        )
    return Retrieved(int(number), next(i for i in get_args(Indexed) if i == (indexed or "both")))


def retrieve_candidates(
    conversations: Sequence[Conversation], items: Mapping[str, Item], metadata: Sequence[Path], retrieved: Retrieved
) -> list[Conversation]:
    """The same conversations with the candidates that were found for them: fewer than k, or none, where fewer match."""
    retriever = Retriever(items, metadata, retrieved.indexed)
    given = []
    for start in range(0, len(conversations), BATCH):
        batch = conversations[start : start + BATCH]
        for conversation, found in zip(batch, retriever.search([c.context for c in batch], retrieved.k), strict=True):
            record = {**conversation.record, retrieved.field: found}
            given.append(replace(conversation, candidates=tuple(found), record=record))
    return given
