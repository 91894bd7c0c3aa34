"""Which of Lightning's strategies train as one process would; any other is refused before weights are loaded.

A strategy that LaViC does not know may leave the processes without each other's gradients, and still report success.
"""

from importlib.util import find_spec
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy, Strategy

from lavic.errors import UserError
from lavic.training.zero import Zero

KNOWN = (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy, Zero)
ADVICE = "give another --trainer.strategy, such as ddp, or configs/with/fsdp2.yaml"


def check_strategy(strategy: Strategy) -> None:
    """Raises a UserError for a strategy under which processes would not train one and the same model."""
    name = type(strategy).__name__
    if not isinstance(strategy, KNOWN):
        raise UserError(f"The strategy {name} is not one that LaViC trains right under; {ADVICE}.")
    if isinstance(strategy, ModelParallelStrategy):
        size = getattr(strategy, "_tensor_parallel_size", 1)
        if size not in (1, "auto") or (size == "auto" and strategy.num_nodes > 1):
            raise UserError(
                f"The strategy {name} is set to tensor_parallel_size {size}; LaViC shards over data_parallel_size"
                " alone, so set tensor_parallel_size to 1."
            )


def passes_must_match(strategy: Strategy) -> bool:
    """Says whether every process must run the same passes in the same order.

    FSDP2 gathers weights in each pass of a layer, and ZeRO adds up gradients in the order in which they come.
    """
    return isinstance(strategy, ModelParallelStrategy | Zero)


def check_size(strategy: Strategy) -> None:
    """Raises a UserError for a sharding over more or fewer processes than the run has, or over one alone."""
    if not isinstance(strategy, ModelParallelStrategy) or getattr(strategy, "_tensor_parallel_size", 1) not in (
        1,
        "auto",
    ):
        return  # which `check_strategy` refuses
    processes = strategy.num_processes * strategy.num_nodes
    size = getattr(strategy, "_data_parallel_size", processes)
    if processes == 1 or size not in ("auto", processes):
        raise UserError(
            f"FSDP2 is to shard over {'all' if size == 'auto' else size} processes, and this run has {processes}; set"
            " --trainer.devices and data_parallel_size to the number of GPUs, or with one leave fsdp2.yaml away."
        )


def check_before_start(strategy: Any, subcommand: str | None) -> None:
    """Refuses what Lightning or DeepSpeed would refuse in pages, after the weights are loaded.

    Args:
        strategy: as the YAML file names it, a string or a class path with its arguments.
        subcommand: Lightning's, such as `fit`.

    Raises:
        UserError: it cannot run here.
    """
    name = strategy if isinstance(strategy, str) else strategy.class_path
    if "deepspeed" in name.lower():
        raise UserError(
            f"The strategy {name} divides gradients by the accumulation twice, and its stage 3 does not go with LaViC's"
            " speedups; give --config configs/with/zero2.yaml, which mends the first, or configs/with/fsdp2.yaml."
        )
    if name.rpartition(".")[2] != Zero.__name__:
        return
    if subcommand != "fit":
        raise UserError(
            f"The strategy {name} spreads what only training has; give --trainer.strategy ddp to {subcommand}."
        )
    if find_spec("deepspeed") is None:
        raise UserError(
            f"The strategy {name} needs the package deepspeed; `pip install deepspeed`, or give another"
            " --trainer.strategy, such as ddp."
        )
