"""Controls of a validation: which other item's image a sample is shown."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def partners_of(items: Sequence[str] | npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """For every sample one of another item, by chance: whose image the `shuffled` control shows instead; (N,).

    The pairing is a bijection, so the control sees exactly the same images. It depends on the seed and the items
    alone, not on batches or processes. (Where one item has more than half of all samples, no such pairing exists, and
    some samples are paired within their item.)
    """
    names, which, counts = np.unique(items, return_inverse=True, return_counts=True)
    place = np.empty(len(names), dtype=np.int64)
    place[np.random.default_rng(seed).permutation(len(names))] = np.arange(len(names))
    order = np.argsort(place[which], kind="stable")
    partners = np.empty_like(order)
    # samples of one item stand together: the most of one item further on is another item
    partners[order] = np.roll(order, -int(counts.max()))
    return partners
