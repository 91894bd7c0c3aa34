"""Real shapes with random weights on a GPU: `python -m benchmarks real-size`.

For each profile, in turns with the plain way on the same GPU: samples/s, model FLOP utilisation, the peak memory
beside what `lavic plan` says, and the ten operations that take most of a step's time. Of `describe`, what comes before
the first token and what comes after it stand apart. The weights are the default checkpoint's shapes, drawn on the
device, so nothing is downloaded. Views are ready on the host for both, so this compares the steps; loading is `data`'s
matter. Rows come in order of worth and are kept one by one; `--seconds` ends it between two, a later call goes on.
With `--toy` it runs a toy model on any device, as a check of this program, and the figures mean nothing.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.real_size_row import measure
from benchmarks.real_size_ways import Profile
from benchmarks.workload import toy_config
from lavic.cost.known_configs import default_config

Row = dict[str, Any]


def profiles(batches: list[int]) -> list[Profile]:
    """The rows, the most telling first."""
    first, *others = batches
    most = max(batches)
    ordered = [
        Profile("stage 1", "bf16", first),
        Profile("stage 1", "bf16", most),
        Profile("stage 1", "nf4", first),
        Profile("stage 1", "bf16", first, compiled=True),
        Profile("stage 2", "bf16", first, "full", tokens=500),
        Profile("describe", "bf16", 8, tokens=100),
        Profile("instruct", "bf16", first, "full", tokens=2048),
        Profile("stage 2", "bf16", first, tokens=1000),
        Profile("stage 2", "bf16", most, "full", tokens=500),
        Profile("embed", "bf16", 16),
        Profile("stage 1", "bf16", first, "selective"),
        Profile("stage 1", "bf16", most, compiled=True),
        Profile("stage 1", "nf4", most),
        Profile("stage 1", "bf16", first, "full"),
        *(Profile("stage 1", "bf16", batch) for batch in others),
        *(Profile("stage 1", "nf4", first, how) for how in ("selective", "full")),
        *(Profile("stage 1", "nf4", batch) for batch in others),
    ]
    return list(dict.fromkeys(ordered))


def missing(batches: list[int], rows: list[Row]) -> list[Profile]:
    """What has no row yet."""
    return [profile for profile in profiles(batches) if not any(vars(profile).items() <= row.items() for row in rows)]


def run(
    device: torch.device,
    batches: list[int],
    rounds: int,
    steps: int,
    toy: bool,
    rows: list[Row] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
    seconds: float = float("inf"),
) -> dict[str, Any]:
    """The profiles' rows; one that does not fit says so.

    Args:
        device: to run on.
        batches: batch sizes, the smallest first.
        rounds: measurements of a row, of which the median counts.
        steps: optimizer steps of a measurement.
        toy: a toy model.
        rows: what earlier calls measured.
        keep: takes the result after every row.
        seconds: a row is begun only if one as long as the longest so far ends in time; the first always is.
    """
    config = toy_config() if toy else default_config()
    rows, start, longest = list(rows or []), time.perf_counter(), 0.0
    waiting = missing(batches, rows)
    result = _result(toy, rows, waiting)
    while waiting and (longest == 0 or time.perf_counter() - start + longest <= seconds):
        profile, begun = waiting.pop(0), time.perf_counter()
        try:
            rows.append(measure(profile, config, device, rounds, steps))
        except torch.OutOfMemoryError:
            rows.append({**vars(profile), "samples/s": "out of memory"})
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        longest = max(longest, time.perf_counter() - begun)
        result = _result(toy, rows, waiting)
        keep(result)
    return result


def _result(toy: bool, rows: list[Row], waiting: list[Profile]) -> dict[str, Any]:
    columns = dict.fromkeys(key for row in rows for key in row)
    return {"toy": toy, "to do": len(waiting), "rows": [{key: row.get(key, "-") for key in columns} for row in rows]}
