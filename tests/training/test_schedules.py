"""The schedule in shares of a run is transformers' own in steps."""

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from lavic.errors import UserError
from lavic.training.schedules import WarmupCosine


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in (2e-4, 2e-5)])


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.03), (7, 0.5), (33, 0.0), (1, 0.03), (40, 0.1)])
def test_every_steps_learning_rates_are_transformers(steps: int, warmup: float) -> None:
    ours, theirs = optimizer(), optimizer()
    schedule = WarmupCosine(ours, warmup)
    schedule.for_steps(steps)
    rising = -(-int(warmup * steps * 1000) // 1000)
    reference = get_cosine_schedule_with_warmup(theirs, rising, steps)
    for _ in range(steps):
        rates = [group["lr"] for group in ours.param_groups]
        assert rates == pytest.approx([group["lr"] for group in theirs.param_groups], rel=1e-12, abs=1e-18)
        ours.step()
        theirs.step()
        schedule.step()
        reference.step()


def test_the_floor_is_what_is_left_at_the_end() -> None:
    falling = optimizer()
    schedule = WarmupCosine(falling, warmup=0.0, floor=0.1)
    schedule.for_steps(5)
    for _ in range(5):
        falling.step()
        schedule.step()
    assert [group["lr"] for group in falling.param_groups] == pytest.approx([2e-5, 2e-6])


def test_a_share_beyond_the_run_is_refused() -> None:
    with pytest.raises(UserError, match="warmup is 3"):
        WarmupCosine(optimizer(), warmup=3)
