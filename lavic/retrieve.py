"""`python -m lavic retrieve`: candidates for one's own conversations, found in one's own catalogue.

The query is the conversation's text, a document an item's title, and the top k are exact: every item is
scored. `bm25` needs no model; `embeddings` takes any sentence-transformers model, as LaViC's `candidates_st`
did. The ground truth is looked at only afterwards, for the recall that is printed.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import bm25s  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from lavic.cli import Parser
from lavic.errors import UserError
from lavic.items import read_items

BATCH = 64  # conversations scored at a time
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


def retrieve(
    conversations: Path,
    metadata: list[Path],
    output: Path,
    method: Literal["bm25", "embeddings"] = "bm25",
    model: str | None = None,
    name: str | None = None,
    k: int = 10,
) -> dict[str, float]:
    """Writes conversations with `candidates_<name>` added, and returns the recall@k of those candidates.

    Args:
        conversations: a .jsonl file with a "context" in every line.
        metadata: item2meta .json or .jsonl files; their items are the catalogue.
        output: the new .jsonl file.
        method: bm25 (no model) or embeddings (needs `--model`).
        model: a sentence-transformers directory or hub name.
        name: the new field's name after "candidates_"; the method's when not given.
        k: candidates a conversation.
    """
    if not conversations.is_file():
        raise UserError(f"The conversation file {conversations} does not exist; give the path of a .jsonl file.")
    if output.exists() and output.samefile(conversations):
        raise UserError(f"The output {output} is the conversation file itself; give another path.")
    if method == "embeddings" and not model:
        raise UserError("The method 'embeddings' needs --model, a sentence-transformers directory or hub name.")
    items = read_items(metadata)
    if not 1 <= k <= len(items):
        raise UserError(f"k is {k}, but must lie between 1 and the catalogue's {len(items)} items.")
    titles = [item.title for item in items.values()]
    scorer: Scorer = Embeddings(titles, model) if method == "embeddings" and model else Bm25(titles)

    field, ids = f"candidates_{name or method}", list(items)
    recall = _Recall()
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f"{output.name}.{os.getpid()}.partial")
    try:
        with beside.open("w", encoding="utf-8") as file:
            for batch in _batches(_records(conversations), BATCH):
                queries = [without_markup(record["context"]) for record in batch]
                for record, scores in zip(batch, scorer.scores(queries), strict=True):
                    candidates = [ids[i] for i in top_k(scores, k)]
                    file.write(json.dumps(record | {field: candidates}, ensure_ascii=False) + "\n")
                    recall.count(candidates, record.get("gt_items") or [])
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)
    print(f"{recall.conversations} conversations x {k} of {len(ids)} items -> {field} in {output}")
    return recall.values(k)


class _Recall:
    """How often candidates hold the truth: pooled over distinct truths, and at least one a conversation."""

    def __init__(self) -> None:
        self.conversations = self.judged = self.reached = self.truths = self.found = 0

    def count(self, candidates: Sequence[str], gt_items: Sequence[str]) -> None:
        self.conversations += 1
        truths = set(gt_items)
        found = len(truths.intersection(candidates))
        self.judged += bool(truths)
        self.reached += bool(found)
        self.truths += len(truths)
        self.found += found

    def values(self, k: int) -> dict[str, float]:
        if not self.judged:
            return {}
        return {f"recall@{k}": self.found / self.truths, f"hit_ratio@{k}": self.reached / self.judged}


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                raise UserError(f"Line {number} of {path} is not valid JSON; mend or remove it.") from None
            if not isinstance(record, dict) or not isinstance(record.get("context"), str):
                raise UserError(f'Line {number} of {path} has no "context" text; mend or remove it.')
            yield record


def _batches(records: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(records)
    while batch := list(islice(iterator, size)):
        yield batch


def main(argv: list[str]) -> int:
    """The command line; see `retrieve` for the options."""
    parser = Parser(prog="python -m lavic retrieve", description="Builds candidates for conversations.")
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_function_arguments(retrieve, fail_untyped=False)
    values = retrieve(**{k: v for k, v in parser.parse_args(argv).as_dict().items() if k != "config"})
    for metric, value in values.items():
        print(f"{metric}: {value:.4f}")
    if not values:
        print("No conversation has gt_items, so no recall is known.")
    return 0
