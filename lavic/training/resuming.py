"""Whether a run may go on from a checkpoint: what the checkpoint depends on must be what it was."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch

from lavic.errors import UserError
from lavic.model.checkpoint_files import checkpoint_hash

LAST = "last.ckpt"
WAY_OUT = "resume with the same, or start afresh without --resume"
SMALLER_BATCHES = (
    "resume with the same product of data.init_args.batch_size, trainer.accumulate_grad_batches and the number of"
    " processes (half the batch and twice the accumulation go on exactly), or start afresh without --resume"
)


def identity_of(trainer: pl.Trainer, module: Any) -> dict[str, Any]:
    """What a position and the trained weights depend on: processes, batch, seed, data, base model, adapter's shape."""
    processes, accumulate = trainer.world_size, trainer.accumulate_grad_batches
    identity: dict[str, Any] = {"processes": processes}
    data: Any = getattr(trainer, "datamodule", None)
    if hasattr(data, "fingerprint"):
        identity["samples a step"] = data.batch_size * accumulate * processes
        identity |= {"seed": data.seed, "training data": data.fingerprint()}
    else:
        identity["accumulate_grad_batches"] = accumulate
    if hasattr(module, "base"):
        identity["base model"] = module.base.name
        identity["base model's tensors"] = checkpoint_hash(module.base.name)
    configs = getattr(getattr(module, "model", None), "peft_config", {})
    if config := configs.get(getattr(module, "adapter_name", "default")):
        identity["LoRA (r, alpha)"] = [config.r, config.lora_alpha]
    return identity | optimization_of(trainer)


def optimization_of(trainer: pl.Trainer) -> dict[str, str]:
    """What the optimizer's and the scheduler's states belong to; nothing before the strategy has set them up."""
    if not trainer.optimizers:
        return {}
    schedulers = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
    optimizers = [type(optimizer).__name__ for optimizer in trainer.optimizers]
    return {"optimizer": ", ".join(optimizers), "learning-rate schedule": ", ".join(schedulers) or "none"}


def check_identity(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises a UserError that names the first thing that differs; what a checkpoint does not say is not asked."""
    for key, value in now.items():
        if before.get(key, value) != value:
            way_out = SMALLER_BATCHES if key == "samples a step" else WAY_OUT
            raise UserError(f"{LAST} was written with {key} {before[key]}, this run has {value}; {way_out}.")


def check_parameters(module: torch.nn.Module, state: Mapping[str, torch.Tensor] | None) -> None:
    """Raises a UserError where a checkpoint's parameters are not the ones that are trained, by name or by shape."""
    if state is None:
        return
    trained = {name: tuple(p.shape) for name, p in module.named_parameters() if p.requires_grad}
    if odd := sorted(set(state) ^ set(trained)):
        raise UserError(
            f"{LAST} was written with other trainable parameters ({odd[0]} is only in"
            f" {'the file' if odd[0] in state else 'the model'}); resume with the configuration that wrote it, or start"
            " afresh without --resume."
        )
    for name, shape in trained.items():
        if tuple(state[name].shape) != shape:
            raise UserError(
                f"{LAST} was written with {name} of shape {list(state[name].shape)}, this run's is {list(shape)};"
                f" {WAY_OUT}."
            )


def trainable_names(module: torch.nn.Module) -> set[str]:
    """Names of the parameters that an optimizer may change."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}
