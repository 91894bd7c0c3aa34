"""Conversation files -> validated conversations -> training samples.

One JSON object a line: `{"context", "gt_items": [ID], "candidates_<name>": [ID], ...}`, in
`<data>/<category>/<split>.jsonl` as published. Whatever else a line holds is kept and written back untouched.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavic.errors import UserError
from lavic.files.json_entries import read_entries
from lavic.files.rejected import Rejected


@dataclass(frozen=True, slots=True)
class Conversation:
    """One line of a conversation file. `gt_items` is as written: it may be empty and may repeat an ID."""

    category: str
    line: int
    context: str
    candidates: tuple[str, ...]
    gt_items: tuple[str, ...]
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a training or validation step sees: a conversation, the candidates shown, the item to name."""

    conversation: Conversation
    candidates: tuple[str, ...]
    target: str


def read_category_split(
    data: Path, categories: Sequence[str], split: str, candidates_key: str | None
) -> tuple[list[Conversation], list[Rejected]]:
    """The usable conversations of one split of several categories, and the lines that were left out.

    Without `candidates_key` they have no candidates yet.

    Raises:
        UserError: a file is missing, or has no usable line, or none has `candidates_key`.
    """
    conversations: list[Conversation] = []
    rejected: list[Rejected] = []
    for category in categories:
        path = data / category / f"{split}.jsonl"
        if not path.is_file():
            there = sorted(p.parent.name for p in data.glob(f"*/{split}.jsonl"))
            raise UserError(
                f"There is no conversation file {path}; categories with a {split} split in {data}: "
                f"{', '.join(there) or 'none'}."
            )
        entries = list(read_conversations(path, candidates_key, category))
        usable = [entry for entry in entries if isinstance(entry, Conversation)]
        unusable = [entry for entry in entries if isinstance(entry, Rejected)]
        if not usable:
            why = f"{unusable[0].where}: {unusable[0].reason}" if unusable else "it is empty"
            raise UserError(f"No line of {path} can be used ({why}); mend it or choose other candidates.")
        conversations += usable
        rejected += [Rejected(f"{entry.where} of {path}", entry.reason) for entry in unusable]
    return conversations, rejected


def read_conversations(path: Path, candidates_key: str | None, category: str) -> Iterator[Conversation | Rejected]:
    """One file, entry by entry. Raises UserError if it cannot be read, or not from some line on."""
    for number, entry in enumerate(read_entries(path), 1):
        line = int(entry.where.rpartition(" ")[2]) if entry.where.startswith("line ") else number
        reason = entry.reason if isinstance(entry, Rejected) else _fault(entry.value, candidates_key)
        if reason or isinstance(entry, Rejected):
            yield Rejected(f"line {line}", reason)
        else:
            yield Conversation(
                category,
                line,
                entry.value["context"],
                tuple(entry.value[candidates_key]) if candidates_key else (),
                tuple(entry.value.get("gt_items") or ()),
                entry.value,
            )


def training_samples(conversations: Sequence[Conversation], inject: bool, seed: int) -> list[Sample]:
    """One sample for each distinct ground truth of each conversation.

    A ground truth that is no candidate replaces one at random with `inject`, or else gives no sample. The
    draw depends on the seed and the sample alone, so neither order nor a restart changes it; the conversation
    itself is never touched.
    """
    samples = []
    for conversation in conversations:
        for target in dict.fromkeys(conversation.gt_items):
            candidates = conversation.candidates
            if target not in candidates:
                if not inject:
                    continue
                draw = random.Random(f"{seed}/{conversation.category}/{conversation.line}/{target}")
                place = draw.randrange(len(candidates))
                candidates = (*candidates[:place], target, *candidates[place + 1 :])
            samples.append(Sample(conversation, candidates, target))
    return samples


def _fault(record: Any, candidates_key: str | None) -> str:
    """Why a line cannot be used; empty when it can."""
    if not isinstance(record, dict):
        return "not an object"
    context = record.get("context")
    if not isinstance(context, str) or not context.strip():
        return "no context"
    if not _is_ids(record.get("gt_items") or []):
        return "gt_items is not a list of IDs"
    if candidates_key is None:
        return ""
    if candidates_key not in record:
        keys = ", ".join(key for key in record if key.startswith("candidates")) or "no candidates"
        return f"no {candidates_key} (it has {keys})"
    candidates = record[candidates_key]
    if not _is_ids(candidates) or not candidates:
        return f"{candidates_key} is not a list of IDs"
    if len(set(candidates)) < len(candidates):
        return f"{candidates_key} repeats an ID"
    return ""


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)
