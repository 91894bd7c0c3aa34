"""A few validation images with their target and the generated text, so that people see what is learned."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from PIL import Image

from lavic.tasks.distillation.described_images import DescribedImages

WHOLE_MODEL = (SingleDeviceStrategy, DDPStrategy)  # on every process; others would wait in a collective


class ValidationSamples(pl.Callback):
    """After each validation in training, has the same few items described.

    They go to TensorBoard and to `samples/epoch_N/` in the run's folder of `logs/`: `K.jpg`, and `samples.jsonl` with
    item, title, image, target and generated text of each.

    Args:
        count: items described, chosen by chance.
    """

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Only on the first process, and only where that holds the whole model."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        log_dir = trainer.log_dir  # a broadcast: on every process
        if not trainer.is_global_zero or not log_dir or not isinstance(trainer.strategy, WHOLE_MODEL):
            return
        images: DescribedImages = trainer.datamodule.validation_images()
        chosen = np.random.default_rng(0).permutation(len(images))[: self.count].tolist()
        epoch = trainer.current_epoch + 1
        folder = Path(log_dir) / "samples" / f"epoch_{epoch}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "samples.jsonl").open("w", encoding="utf-8") as lines:
            for k, index in enumerate(chosen):
                batch = images.prompts([index])
                whole = batch["views"][0]  # (3, side, side) uint8: the first view is the whole image
                Image.fromarray(whole.permute(1, 2, 0).numpy()).save(folder / f"{k}.jpg")
                with torch.random.fork_rng(), trainer.precision_plugin.forward_context():
                    [generated] = pl_module.describe(trainer.strategy.batch_to_device(batch))
                sample = batch["samples"][0]
                sample["target"] = sample.pop("description")
                lines.write(json.dumps({**sample, "generated": generated}) + "\n")
                if isinstance(trainer.logger, TensorBoardLogger):
                    text = f"**target** {sample['target']}\n\n**generated** {generated}"
                    trainer.logger.experiment.add_image(f"sample/{k}", whole, trainer.global_step)
                    trainer.logger.experiment.add_text(f"sample/{k}", text, trainer.global_step)
