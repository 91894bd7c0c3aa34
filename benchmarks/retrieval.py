"""Milliseconds of a query over a catalogue's titles and descriptions, by BM25.

    python -m benchmarks.retrieval --items 100000

Words are drawn by Zipf's law from 30,000, 110 a document; a query has the 300 words of a conversation, or the 2,800 of
the longest one of the published files.
"""

import argparse
import statistics
import time

import numpy as np

from benchmarks.machine import processor_name
from lavic.retrieval.scorers import Bm25

WORDS, DOCUMENT, QUERIES = 30_000, 110, (300, 2800)


def main() -> None:
    """Prints the time of building the index, and the median time of a query of each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000, help="documents of the index (default: 100,000)")
    parser.add_argument("--runs", type=int, default=15, help="queries of each length (default: 15)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{number}" for number in range(WORDS)])
    chance = 1 / np.arange(1, WORDS + 1)
    chance /= chance.sum()
    documents = [" ".join(words) for words in rng.choice(vocabulary, (options.items, DOCUMENT), p=chance)]
    started = time.perf_counter()
    index = Bm25(documents)
    print(f"{processor_name()}: {options.items:,} documents indexed in {time.perf_counter() - started:.1f} s")
    for length in QUERIES:
        times = []
        for _ in range(options.runs):
            query = " ".join(rng.choice(vocabulary, length, p=chance))
            started = time.perf_counter()
            index.search([query], 100)
            times.append(1000 * (time.perf_counter() - started))
        middle, least, most = statistics.median(times), min(times), max(times)
        print(f"a query of {length:,} words: {middle:.1f} ms (median; {least:.1f} to {most:.1f})")


if __name__ == "__main__":
    main()
