"""Learning-rate schedules in shares of a run, so that a YAML file need not know its number of steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lavic.ranges import check_ranges


class WarmupCosine(LambdaLR):
    """Rises linearly over the first share of all optimizer steps, then falls to `floor` along half a cosine.

    As transformers' `get_cosine_schedule_with_warmup`, whose number of steps the task fills in by `for_steps`.

    Args:
        optimizer: whose groups' learning rates are the peaks.
        warmup: share of all steps that rise, 0 to 1.
        floor: share of the peak that is left at the end, 0 to 1.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.03, floor: float = 0.0) -> None:
        check_ranges("scheduler.", warmup=warmup, floor=floor)
        self.warmup, self.floor, self.total = warmup, floor, 0
        super().__init__(optimizer, self.share)

    def share(self, step: int) -> float:
        """The share of the peak at an optimizer step, 0-based."""
        rising = math.ceil(self.warmup * self.total)
        if step < rising:
            return step / rising
        through = min(1.0, (step - rising) / max(1, self.total - rising))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * through)) / 2

    def for_steps(self, total: int, step: int = 0) -> None:
        """Spreads the schedule over `total` optimizer steps, and sets the learning rates of the 0-based `step`."""
        self.total, self.last_epoch = total, step
        self._last_lr = [base * self.share(self.last_epoch) for base in self.base_lrs]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr
