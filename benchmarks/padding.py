"""How much of stage 2's batches is padding, on published conversations:  python -m benchmarks.padding --help

Every validation conversation is made into a training sample as `fit` does it, tokenised, and planned into steps. What
counts is the tokens of padded micro-batches that belong to no sample: in a plain shuffle, in the plan's order, and in
one by exact lengths. Nothing is computed by a model. An item that the catalogue does not know is given the title of
one that it knows, since titles of "No Title" are all equally long.
"""

import argparse
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer

from benchmarks.__main__ import table
from lavic.batching.step_plan import StepPlan
from lavic.catalogue.conversations import read_category_split, training_samples
from lavic.catalogue.items import read_items
from lavic.model.text import PLACEHOLDERS
from lavic.tasks.recommendation.batches import rough_length
from lavic.tasks.recommendation.prompt import Shown, encode_choice

Lengths = npt.NDArray[np.int64]


def conversation_lengths(data_dir: Path, metadata: Path, tokenizer_dir: Path, max_length: int) -> tuple[Lengths, ...]:
    """(tokens, supervised tokens, letters) of every validation conversation as a training sample, each (N,)."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    tokenizer.add_tokens(list(PLACEHOLDERS), special_tokens=True)
    categories = sorted(path.parent.name for path in data_dir.glob("*/valid.jsonl"))
    conversations, _ = read_category_split(data_dir, categories, "valid", "candidates_st")
    samples = training_samples(conversations, inject=True, seed=42)
    known = [item.title for item in read_items([metadata]).values()]
    titles = {item: known[hash_of(item) % len(known)] for sample in samples for item in sample.candidates}
    rows = []
    for sample in samples:
        shown = [Shown(item, titles[item], 5) for item in sample.candidates]
        choice = encode_choice(tokenizer, sample.conversation.context, shown, [sample.target], max_length)
        answer = len(choice.answers[0])
        rows.append((len(choice.prompt_ids) + answer, answer - choice.unscored, rough_length(sample, titles)))
    return tuple(np.array(rows, dtype=np.int64).T)


def hash_of(text: str) -> int:
    """The same number in every process."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big")


def padding(lengths: Lengths, batches: Iterable[Sequence[int]]) -> float:
    """The share of the batches' tokens that is padding."""
    own = padded = 0
    for rows in batches:
        own += int(lengths[list(rows)].sum())
        padded += int(lengths[list(rows)].max()) * len(rows)
    return 1 - own / padded


def shares(lengths: Lengths, targets: Lengths, letters: Lengths, batch: int, accumulate: int) -> dict[str, float]:
    """Padding of one epoch: in a shuffle, by the plan over letters (as `fit` does), and by one over tokens."""
    plans = {"plan": letters, "plan by tokens": lengths}
    found = {
        name: padding(lengths, (m.indices for m in StepPlan(by, targets, batch, accumulate, seed=42)))
        for name, by in plans.items()
    }
    order = np.random.default_rng(42).permutation(len(lengths)).tolist()
    return {"shuffle": padding(lengths, (order[i : i + batch] for i in range(0, len(order), batch))), **found}


def main() -> None:
    """Prints the shares as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the categories' folders")
    parser.add_argument("--metadata", type=Path, default=Path("data/item2meta_valid.jsonl"), help="whose titles")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the language model's tokenizer")
    parser.add_argument("--max_length", type=int, default=2048, help="tokens of a prompt and its answer at most")
    options = parser.parse_args()
    lengths, targets, letters = conversation_lengths(
        options.data_dir, options.metadata, options.tokenizer, options.max_length
    )
    print(f"{len(lengths)} conversations of {lengths.min()} to {lengths.max()} tokens, mean {lengths.mean():.0f}")
    rows = []
    for batch, accumulate in ((1, 8), (2, 4), (4, 2), (8, 1), (8, 4), (16, 1)):
        found = shares(lengths, targets, letters, batch, accumulate)
        percent = {name: f"{share:.1%}" for name, share in found.items()}
        rows.append({"batch": batch, "accumulate": accumulate, **percent})
    print(table(rows))


if __name__ == "__main__":
    main()
