"""A catalogue that can be searched: a conversation in, the items that match it out, with the reason for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lavic.catalogue.items import Item
from lavic.retrieval.documents import Indexed, item_documents
from lavic.retrieval.scorers import Method, make_scorer, without_markup


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that was found, its score (higher is nearer; of one method and query alone), and why."""

    item: str
    score: float
    why: str = ""


class Retriever:
    """An index of what the items' titles and descriptions say.

    Args:
        items: the catalogue, by ID.
        metadata: the item2meta files it was read from, for the descriptions.
        indexed: titles, descriptions, or both.
        method: bm25 or embeddings.
        model: the embedding model.
    """

    def __init__(
        self,
        items: Mapping[str, Item],
        metadata: Sequence[Path],
        indexed: Indexed = "both",
        method: Method = "bm25",
        model: str | None = None,
    ) -> None:
        documents = item_documents(items, metadata, indexed)
        self.indexed = indexed
        self._ids = list(documents)
        self._scorer = make_scorer(method, list(documents.values()), model)

    def search(self, conversations: Sequence[str], k: int) -> list[list[str]]:
        """At most `k` items for each conversation, the nearest first; none where nothing matches."""
        queries = [without_markup(conversation) for conversation in conversations]
        return [[self._ids[place] for place, _ in found] for found in self._scorer.search(queries, k)]

    def candidates(self, conversation: str, k: int) -> list[Candidate]:
        """As `search` of one conversation, with scores and reasons."""
        query = without_markup(conversation)
        [found] = self._scorer.search([query], k)
        return [Candidate(self._ids[place], score, self._scorer.why(query, place)) for place, score in found]
