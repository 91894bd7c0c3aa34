"""Where a run stands in its epoch, in the counters of Lightning's fit loop.

A checkpoint is one of three positions in an epoch, always after a whole optimizer step:

- after a step, with more steps to come;
- before a validation, which a resumed run does first;
- after a validation, or after the last step of an epoch without one.

Lightning's own resume restores the first and skips a validation that was cut off; the loop counters are
therefore written here in the form that makes it do what the position says.
"""

from typing import Any

AFTER_STEP, BEFORE_VALIDATION, AFTER_VALIDATION = "after step", "before validation", "after validation"


def write_position(loops: dict[str, Any], position: str) -> None:
    """Rewrites the counters of Lightning's fit loop so that a run that loads them starts at the position."""
    validation = loops["epoch_loop.val_loop.batch_progress"]
    if position == BEFORE_VALIDATION:
        counts = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # cut off in its first batch
    else:  # a validation that was cut off and done again would count as cut off for ever
        counts = dict.fromkeys(("ready", "started", "processed", "completed"), validation["total"]["completed"])
    validation.update(total=dict(counts), current=dict(counts), is_last_batch=False)
    if position == AFTER_STEP:
        return  # the other counters that Lightning stores in on_train_batch_end are right
    batches = loops["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        if counts["completed"] < counts["ready"]:  # stored in on_train_batch_end, which counts as unfinished
            counts["completed"] = counts["ready"]
            stepped = counts is batches["current"]
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] += int(stepped)


def recount(loops: dict[str, Any], before: int, now: int) -> None:
    """Counts an epoch's micro-batches anew, for a run that makes its steps of `now` micro-batches instead of `before`.

    A position is always after a whole step. The last step of an epoch may be a short one: it counts as a whole one,
    and its epoch is over either way.
    """

    def converted(micro_batches: int) -> int:
        return -(-micro_batches // before) * now

    batches = loops["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        unfinished = counts["ready"] - counts["completed"]
        counts["ready"] = converted(counts["ready"])
        counts["started"] = counts["processed"] = counts["ready"]
        counts["completed"] = counts["ready"] - unfinished
    for loader in loops["state_dict"].get("combined_loader", ()):
        if "batch" in loader:
            loader["batch"] = converted(loader["batch"])
