"""What loading weights says while it lasts: what, how far, how long; nothing of what is quick."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils.logging import set_tqdm_hook

log = logging.getLogger(__name__)

LARGE = 2**30  # bytes of weight files from which a line is said before they are read
BETWEEN = 20.0  # seconds between two lines


@contextmanager
def telling(name: str, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Says how far transformers is with loading the weights of `name`, every 20 seconds, and that it has ended.

    Args:
        name: hub name or local directory.
        clock: seconds, from any start.
    """
    started = last = clock()
    size = sum(path.stat().st_size for path in Path(name).glob("*.safetensors"))
    told = size >= LARGE
    if told:
        log.info("Loading %.1f GiB of weights from %s.", size / 2**30, name)

    def counted(tensors: Any, total: int) -> Iterator[Any]:
        nonlocal last, told
        for number, tensor in enumerate(tensors):
            now = clock()
            if now - last >= BETWEEN:
                last, told = now, True
                log.info("Loading %s: %d of %d tensors after %.0f s.", name, number, total, now - started)
            yield tensor

    def hook(make: Callable[..., Any], given: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if given and hasattr(given[0], "__len__"):
            return counted(given[0], len(given[0]))
        return make(*given, **options)

    before = set_tqdm_hook(hook)
    try:
        yield
    finally:
        set_tqdm_hook(before)
    if told:
        log.info("Loaded %s in %.0f s.", name, clock() - started)
