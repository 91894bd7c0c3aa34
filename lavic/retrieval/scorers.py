"""Scores of every catalogue document for each query: BM25, or a sentence-transformers model's embeddings."""

import re
from collections.abc import Sequence
from typing import Protocol

import bm25s  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from lavic.errors import UserError

_MARKUP = re.compile(r"</?(?:submission|comment)>")


class Scorer(Protocol):
    """Scores every document for each query."""

    def scores(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """(queries, documents), higher is nearer."""


class Bm25:
    """Okapi BM25 (Robertson et al.) by bm25s, with its English stop words, k1 1.5 and b 0.75."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._index = bm25s.BM25()
        self._index.index(bm25s.tokenize(list(documents), show_progress=False), show_progress=False)
        self._documents = len(documents)

    def scores(self, queries: Sequence[str]) -> NDArray[np.float32]:
        tokenized = bm25s.tokenize(list(queries), return_ids=False, show_progress=False)
        rows = np.zeros((len(queries), self._documents), dtype=np.float32)
        for row, words in zip(rows, tokenized, strict=True):
            known = self._index.get_tokens_ids(words)
            if known:
                row += self._index.get_scores_from_ids(known)
        return rows


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
        try:
            self._model = SentenceTransformer(model)
        except (OSError, ValueError) as error:
            raise UserError(
                f"The embedding model '{model}' cannot be loaded ({str(error).splitlines()[0]}); give a "
                "sentence-transformers directory or hub name."
            ) from None
        self._documents = self._embed(documents)

    def scores(self, queries: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(self._embed(queries) @ self._documents.T, dtype=np.float32)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        embedded = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(embedded, dtype=np.float32)


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
