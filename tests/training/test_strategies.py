"""A strategy that LaViC does not shard for is refused; those it knows pass."""

import pytest
from lightning.pytorch.strategies import (
    DDPStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)

from lavic.errors import UserError
from lavic.training.strategies import check_strategy


@pytest.mark.parametrize(
    "strategy",
    [SingleDeviceStrategy(), DDPStrategy(), ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)],
)
def test_known_strategies_pass(strategy: Strategy) -> None:
    check_strategy(strategy)


@pytest.mark.parametrize(
    ("strategy", "named"),
    [(FSDPStrategy(), "FSDPStrategy"), (ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=2), "tensor")],
)
def test_what_would_train_two_models_is_refused(strategy: Strategy, named: str) -> None:
    with pytest.raises(UserError, match=named):
        check_strategy(strategy)
