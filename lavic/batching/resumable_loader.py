"""A data loader that can start in the middle of an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler


def as_it_is(batch: Any) -> Any:
    """The `collate_fn` of data sets whose elements are whole micro-batches."""
    return batch


class _StartingAt(Sampler[Any]):
    """The wrapped plan from the micro-batch `start` on."""

    def __init__(self, plan: Sampler[Any]) -> None:
        self.plan, self.start, self.epoch = plan, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch
        if hasattr(self.plan, "set_epoch"):
            self.plan.set_epoch(epoch)

    def __len__(self) -> int:
        """Micro-batches of a whole epoch, wherever this one starts."""
        return len(self.plan)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.plan), self.start, None)


class ResumableLoader(DataLoader[Any]):
    """A `DataLoader` over a plan that the epoch alone fixes; its state is (epoch, micro-batches taken).

    Lightning stores the state in its checkpoints and loads it before the first iteration. Skipped micro-
    batches are not read: only the plan's entries are passed over.

    Args:
        dataset: maps an entry of the plan to a whole micro-batch.
        plan: yields an epoch's micro-batches in the order that its `set_epoch` fixes.
        **options: as for `DataLoader`; `num_workers`, `collate_fn`, `pin_memory` and so on.
    """

    def __init__(self, dataset: Dataset[Any], plan: Sampler[Any], **options: Any) -> None:
        super().__init__(dataset, batch_size=None, sampler=_StartingAt(plan), **options)
        self._next_start = self._taken = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # Set here and not reset by the sampler, which a DataLoader with workers iterates twice as it starts.
        self.sampler.start = self._taken = self._next_start  # type: ignore[attr-defined]
        self._next_start = 0
        # The workers start with the iterator, not with the first batch, so that they load ahead.
        return self._count(super().__iter__())

    def _count(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._taken += 1  # what was taken, not what the workers have loaded ahead
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the next micro-batch is."""
        return {"epoch": self.sampler.epoch, "batch": self._taken}  # type: ignore[attr-defined]

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration start there."""
        self.sampler.set_epoch(state["epoch"])  # type: ignore[attr-defined]
        self._next_start = state["batch"]
