"""DeepSpeed's ZeRO stage 2 under Lightning, so that it trains as every other strategy does.

Under Lightning's own strategy a micro-batch's loss is divided by the accumulation twice, by Lightning and by
DeepSpeed's engine; the engine counts micro-batches by itself, so that an epoch's shorter last step shifts all
later ones; and a checkpoint is written over the last one, file by file.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor

from lavic.files.folders import flush_folder, put_in_place, remove

STAGE = 2  # gradients and optimizer state are spread; FSDP2 is for spreading weights


class Zero(DeepSpeedStrategy):
    """Spreads gradients and the optimizer's state over the processes (Rajbhandari et al., 2020).

    The engine accumulates nothing by itself here: it is told before each backward pass whether a step ends with it. It
    clips, and skips steps whose gradient is not finite. It also runs on CPUs, where DeepSpeed does.

    Args:
        offload_optimizer: whether the optimizer's state is kept in the host's memory.
    """

    def __init__(self, offload_optimizer: bool = False, **options: Any) -> None:
        super().__init__(stage=STAGE, offload_optimizer=offload_optimizer, exclude_frozen_parameters=True, **options)
        self.config["bf16"] = {"check_grad_overflow": True}  # type: ignore[index]

    @property
    def handles_gradient_accumulation(self) -> bool:
        """Returns False: Lightning decides when a step ends."""
        return False

    def setup_environment(self) -> None:
        """Sets up the processes on whatever device DeepSpeed runs on."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Joins the processes; devices have numbers to compare on CUDA alone."""
        with redirect_stdout(sys.stderr):  # DeepSpeed prints what it builds
            if self.root_device.type == "cuda":
                super().setup_distributed()
                return
            self.set_world_ranks()
            self._init_deepspeed_distributed()

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Tells the engine whether the coming backward pass is a step's last."""
        trainer: Any = self.lightning_module.trainer  # type: ignore[union-attr]
        self.deepspeed_engine.set_gradient_accumulation_boundary(not trainer.fit_loop._should_accumulate())
        super().pre_backward(closure_loss)

    def block_backward_sync(self) -> Any:
        """Blocks nothing: ZeRO spreads the gradients of each micro-batch as they come."""
        return nullcontext()

    def optimizer_step(self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **options: Any) -> Any:
        """Steps, and logs the gradient's norm before clipping, which only the engine knows."""
        done = super().optimizer_step(optimizer, closure, model, **options)
        norm = self.deepspeed_engine.get_global_grad_norm()
        if norm is not None:
            self.lightning_module.log("grad_norm", float(norm), batch_size=1)  # type: ignore[union-attr]
        return done

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Writes the checkpoint's folder beside, and puts it in the place of the last one when all have written."""
        final = Path(self.broadcast(filepath))
        beside = final.with_name(f".{final.name}.partial")
        if self.is_global_zero:
            remove(beside)
        self.barrier()
        super().save_checkpoint(checkpoint, beside, storage_options)
        self.barrier()
        if self.is_global_zero:
            flush_folder(beside)
            put_in_place(beside, final)
        self.barrier()

    def _setup_model_and_optimizer(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        import deepspeed

        engine, wrapped, _, _ = deepspeed.initialize(
            args=Namespace(device_rank=self.local_rank),  # which Lightning takes from the device, and a CPU has none
            config=self.config,
            model=model,
            model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        return engine, wrapped

    def _format_batch_size_and_grad_accum_config(self) -> None:
        # Lightning would ask the loader for its batch sampler, which a loader of whole micro-batches has none of.
        trainer: Any = self.lightning_module.trainer  # type: ignore[union-attr]
        options: dict[str, Any] = self.config  # type: ignore[assignment]
        options["gradient_accumulation_steps"] = 1
        options.setdefault("train_micro_batch_size_per_gpu", trainer.datamodule.batch_size)
        options.setdefault("gradient_clipping", trainer.gradient_clip_val or 0.0)
