"""`python -m lavic retrieve`: candidates for one's own conversations, found in one's own catalogue.

The query is the conversation's text, a document an item's title, its descriptions, or both, and the top k are exact.
`bm25` needs no model; `embeddings` takes any sentence-transformers model, as LaViC's `candidates_st` did. An item that
shares nothing with a conversation is no candidate of it: such a conversation gets fewer, and how many do is said. The
ground truth is looked at only afterwards, for the recall that is printed.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lavic.catalogue.items import read_items
from lavic.commands.options import OptionParser, with_new_names
from lavic.errors import UserError
from lavic.files import writing
from lavic.files.json_entries import read_entries
from lavic.files.rejected import Rejected
from lavic.retrieval.documents import Indexed, item_documents
from lavic.retrieval.scorers import Method, make_scorer, without_markup

log = logging.getLogger(__name__)

BATCH = 64  # conversations scored at a time


def retrieve(
    conversations: Path,
    metadata: list[Path],
    out: Path,
    index: Indexed = "both",
    method: Method = "bm25",
    model: str | None = None,
    name: str | None = None,
    k: int = 10,
) -> dict[str, float]:
    """Writes conversations with `candidates_<name>` added, and returns the recall@k of those candidates.

    Args:
        conversations: a .jsonl file with a "context" in every line.
        metadata: item2meta .json or .jsonl files; their items are the catalogue.
        out: the new .jsonl file.
        index: what of an item is searched: titles, descriptions, or both.
        method: bm25 (no model) or embeddings (needs `--model`).
        model: a sentence-transformers directory or hub name.
        name: the new field's name after "candidates_"; the method's when not given.
        k: candidates a conversation.
    """
    if not conversations.is_file():
        raise UserError(f"The conversation file {conversations} does not exist; give the path of a .jsonl file.")
    if out.exists() and out.samefile(conversations):
        raise UserError(f"The output {out} is the conversation file itself; give another path.")
    if method == "embeddings" and not model:
        raise UserError("The method 'embeddings' needs --model, a sentence-transformers directory or hub name.")
    items = read_items(metadata)
    if not 1 <= k <= len(items):
        raise UserError(f"k is {k}, but must lie between 1 and the catalogue's {len(items)} items.")
    documents = item_documents(items, metadata, index)
    scorer = make_scorer(method, list(documents.values()), model)

    field, ids = f"candidates_{name or method}", list(documents)
    recall = _Recall()
    found_fewer = found_none = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with writing(out) as file:
        for batch in _batches(_records(conversations), BATCH):
            queries = [without_markup(record["context"]) for record in batch]
            for record, found in zip(batch, scorer.search(queries, k), strict=True):
                candidates = [ids[place] for place, _ in found]
                file.write(json.dumps(record | {field: candidates}, ensure_ascii=False) + "\n")
                recall.count(candidates, record.get("gt_items") or [])
                found_fewer += len(candidates) < k
                found_none += not candidates
        if found_none == recall.conversations:
            raise UserError(
                f"Nothing in the catalogue matches a word of any of the {found_none} conversations of {conversations}; "
                "index descriptions too, or take the method embeddings."
            )
    print(f"{recall.conversations} conversations x {k} of {len(ids)} items -> {field} in {out}")
    if found_none:
        log.warning(
            "%d of %d conversations share no word with the catalogue: nothing matches them, and their %s is empty; "
            "index descriptions too, or take the method embeddings.", found_none, recall.conversations, field,
        )  # fmt: skip
    if found_fewer > found_none:
        log.warning(
            "%d of %d conversations got fewer than %d candidates, for no other item matches their words.",
            found_fewer - found_none, recall.conversations, k,
        )  # fmt: skip
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
    found = False
    for entry in read_entries(path):
        if isinstance(entry, Rejected):
            raise UserError(f"{entry.where.capitalize()} of {path} is {entry.reason}; mend or remove it.")
        if not isinstance(entry.value, dict) or not isinstance(entry.value.get("context"), str):
            raise UserError(f'{entry.where.capitalize()} of {path} has no "context" text; mend or remove it.')
        found = True
        yield entry.value
    if not found:
        raise UserError(f'No conversation is in {path}; give a file with a "context" in every line.')


def _batches(records: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(records)
    while batch := list(islice(iterator, size)):
        yield batch


def main(argv: list[str]) -> int:
    """The command line; see `retrieve` for the options."""
    parser = OptionParser(prog="python -m lavic retrieve", description="Builds candidates for conversations.")
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_function_arguments(retrieve, fail_untyped=False)
    values = retrieve(**{k: v for k, v in parser.parse(with_new_names(argv)).as_dict().items() if k != "config"})
    for metric, value in values.items():
        print(f"{metric}: {value:.4f}")
    if not values:
        print("No conversation has gt_items, so no recall is known.")
    return 0
