"""Controls of a validation: which other item's image a sample is shown."""

from collections import Counter

import numpy as np


def partners_of(items: list[str], seed: int) -> list[int]:
    """For every sample one of another item, by chance: whose image the `shuffled` control shows instead.

    The pairing is a bijection, so the control sees exactly the same images. It depends on the seed and the items
    alone, not on batches or processes. (Where one item has more than half of all samples, no such pairing exists, and
    some samples are paired within their item.)
    """
    rng = np.random.default_rng(seed)
    counts = Counter(items)
    place = {item: i for i, item in enumerate(rng.permutation(sorted(counts)))}
    order = sorted(range(len(items)), key=lambda i: place[items[i]])
    shift = max(counts.values())  # samples of one item stand together: this many places on is another item
    partners = [0] * len(items)
    for position, i in enumerate(order):
        partners[i] = order[(position + shift) % len(order)]
    return partners
