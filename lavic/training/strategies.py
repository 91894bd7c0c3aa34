"""Which of Lightning's strategies train as one process would; any other is refused before weights are loaded.

A strategy that LaViC does not know may leave the processes without each other's gradients, and still report success.
"""

from importlib.util import find_spec
from typing import Any

import torch
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)

from lavic.errors import UserError

KNOWN = (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
ADVICE = "give another --trainer.strategy, such as ddp, or configs/with/fsdp2.yaml"


def check_strategy(strategy: Strategy) -> None:
    """Raises a UserError for a strategy under which processes would not train one and the same model."""
    name = type(strategy).__name__
    if type(strategy) not in KNOWN and not isinstance(strategy, DDPStrategy | SingleDeviceStrategy):
        raise UserError(f"The strategy {name} is not one that LaViC trains right under; {ADVICE}.")
    if isinstance(strategy, ModelParallelStrategy):
        size = getattr(strategy, "_tensor_parallel_size", 1)
        if size not in (1, "auto") or (size == "auto" and strategy.num_nodes > 1):
            raise UserError(
                f"The strategy {name} is set to tensor_parallel_size {size}; LaViC shards over data_parallel_size"
                " alone, so set tensor_parallel_size to 1."
            )


def check_size(strategy: Strategy) -> None:
    """Raises a UserError for a sharding over more or fewer processes than the run has, or over one alone."""
    if not isinstance(strategy, ModelParallelStrategy):
        return
    processes = strategy.num_processes * strategy.num_nodes
    size = getattr(strategy, "_data_parallel_size", processes)
    if processes == 1 or size not in ("auto", processes):
        raise UserError(
            f"FSDP2 is to shard over {'all' if size == 'auto' else size} processes, and this run has {processes}; set"
            " --trainer.devices and data_parallel_size to the number of GPUs, or with one leave fsdp2.yaml away."
        )


def check_before_start(strategy: Any, device: torch.device) -> None:
    """What Lightning would say of DeepSpeed in pages, after the weights are loaded.

    Args:
        strategy: as the YAML file names it, a string or a class path with its arguments.
        device: the kind of device of this run.

    Raises:
        UserError: it cannot run here.
    """
    name = strategy if isinstance(strategy, str) else strategy.class_path
    if "deepspeed" not in name.lower():
        return
    instead = "or give another --trainer.strategy, such as ddp"
    if device.type != "cuda":
        raise UserError(
            f"The strategy {name} runs on CUDA GPUs only, and this run is on the {device.type}; train there, {instead}."
        )
    if find_spec("deepspeed") is None:
        raise UserError(f"The strategy {name} needs the package deepspeed; `pip install deepspeed`, {instead}.")
