"""The catalogue's documents nearest to each query: by BM25, or by a sentence-transformers model's embeddings.

A document that shares nothing with the query is never found, so fewer than k may be, or none: whoever asks says so
instead of showing the first k documents as a ranking.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, Protocol

import bm25s  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from lavic.errors import UserError
from lavic.files.hub import require_model
from lavic.retrieval.words import words

Method = Literal["bm25", "embeddings"]
Found = list[tuple[int, float]]
"""Places of documents and their scores, the highest first; among equals the first document."""

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG

REASONS = 5  # shared words named as the reason for a candidate

_MARKUP = re.compile(r"</?(?:submission|comment)>")


class Scorer(Protocol):
    """Finds documents."""

    def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """At most `k` documents for each query."""

    def why(self, query: str, place: int) -> str:
        """Why a document was found, in a few words."""


def make_scorer(method: Method, documents: Sequence[str], model: str | None = None) -> Scorer:
    """An index of the documents; `model` names the embedding model.

    Raises:
        UserError: embeddings without a model, or one that cannot be loaded.
    """
    if method == "bm25":
        return Bm25(documents)
    if not model:
        raise UserError("The method 'embeddings' needs a model of sentence-transformers; name one, or take bm25.")
    return Embeddings(documents, model)


class Bm25:
    """Okapi BM25 (Robertson et al.), indexed by bm25s with k1 1.5 and b 0.75, over the words of `words`.

    A query adds up the stored columns of its own words, so that documents without one of them are not touched.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        self._vocabulary: dict[str, int] = {}
        ids = [[self._vocabulary.setdefault(w, len(self._vocabulary)) for w in words(d)] for d in documents]
        self._documents = len(documents)
        if self._vocabulary:  # bm25s takes no corpus without a word
            index = bm25s.BM25(k1=1.5, b=0.75)
            index.index((ids, self._vocabulary), create_empty_token=False, show_progress=False)
            columns = index.scores
            self._scores: NDArray[np.float32] = columns["data"]
            self._places: NDArray[np.int64] = columns["indices"].astype(np.int64)  # what add.at is fast with
            self._starts: NDArray[np.int64] = columns["indptr"]

    def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """Documents with at least one of the query's words."""
        return [_best(self.scores(query), k) for query in queries]

    def why(self, query: str, place: int) -> str:
        """The shared words that count most."""
        shares = {}
        for word, count in Counter(words(query)).items():
            if (column := self._vocabulary.get(word)) is not None:
                start, stop = self._starts[column], self._starts[column + 1]
                here = np.flatnonzero(self._places[start:stop] == place)
                if len(here):
                    shares[word] = count * float(self._scores[start + here[0]])
        return f"matches {', '.join(sorted(shares, key=lambda word: -shares[word])[:REASONS])}"

    def scores(self, query: str) -> NDArray[np.float32]:
        """(documents,); 0 for those without one of the query's words."""
        total = np.zeros(self._documents, dtype=np.float32)
        for word, count in Counter(words(query)).items():
            if (column := self._vocabulary.get(word)) is not None:
                run = slice(self._starts[column], self._starts[column + 1])
                np.add.at(total, self._places[run], count * self._scores[run])
        return total


class Embeddings:
    """Cosine similarity of a sentence-transformers model's embeddings."""

    def __init__(self, documents: Sequence[str], model: str) -> None:
        try:
            from sentence_transformers import (  # type: ignore[import-not-found,unused-ignore]
                SentenceTransformer,
            )
        except ModuleNotFoundError:
            raise UserError(
                "The method 'embeddings' needs sentence-transformers; install it with "
                "`pip install lavic[retrieve]` or take the method 'bm25'."
            ) from None
        require_model(model, "embedding model")
        try:
            self._model = SentenceTransformer(model)
        except (OSError, ValueError) as error:
            raise UserError(
                f"The embedding model '{model}' cannot be loaded ({str(error).splitlines()[0]}); give a "
                "sentence-transformers directory or hub name."
            ) from None
        self._documents = self._embed(documents)
        self._empty = np.array([not document.strip() for document in documents])

    def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """The nearest documents, whatever the distance; none for a query without a word."""
        similarity = self._embed(queries) @ self._documents.T  # (queries, documents)
        similarity[:, self._empty] = -np.inf
        return [
            _best(scores, k, floor=-np.inf) if words(query) else []
            for query, scores in zip(queries, similarity, strict=True)
        ]

    def why(self, query: str, place: int) -> str:
        """The cosine."""
        return f"similar text (cosine {float(self._embed([query])[0] @ self._documents[place]):.2f})"

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        embedded = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(embedded, dtype=np.float32)


def _best(scores: NDArray[np.float32], k: int, floor: float = 0.0) -> Found:
    return [(int(place), float(scores[place])) for place in top_k(scores, k) if scores[place] > floor]


def top_k(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the k highest of (N,) scores, best first; among equals the first ones."""
    k = min(k, len(scores))
    bar = np.partition(scores, -k)[-k]
    above, equal = np.flatnonzero(scores > bar), np.flatnonzero(scores == bar)
    chosen = np.concatenate([above, equal[: k - len(above)]])
    return chosen[np.lexsort((chosen, -scores[chosen]))]


def without_markup(conversation: str) -> str:
    """A conversation's words, without the marks of who speaks."""
    return _MARKUP.sub(" ", conversation)
