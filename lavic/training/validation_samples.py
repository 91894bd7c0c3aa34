"""A few validation samples with their target and the generated text, so that people see what is learned."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from PIL import Image
from torch import Tensor

from lavic.files import write_text
from lavic.training.protocols import ShownSample, ShowsSamples

WHOLE_MODEL = (SingleDeviceStrategy, DDPStrategy)  # on every process; others would wait in a collective


class ValidationSamples(pl.Callback):
    """After each validation in training, has the same few samples answered.

    They go to TensorBoard or W&B, and to `samples/epoch_N/` in the run's folder of `logs/`: `K.jpg` where there is an
    image, and `samples.jsonl` with the fields, the target and the generated text of each.

    Args:
        count: samples answered, chosen by chance.
    """

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Only on the first process, and only where that holds the whole model."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        log_dir = trainer.log_dir  # a broadcast: on every process
        data = trainer.datamodule
        if not trainer.is_global_zero or not log_dir or not isinstance(data, ShowsSamples):
            return
        if not isinstance(trainer.strategy, WHOLE_MODEL):
            return
        folder = Path(log_dir) / "samples" / f"epoch_{trainer.current_epoch + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for k, sample in enumerate(data.shown_samples(self.count)):
            with torch.random.fork_rng(), trainer.precision_plugin.forward_context():
                [generated] = pl_module.answer(trainer.strategy.batch_to_device(sample.batch))
            if sample.image is not None:
                _image(sample.image).save(folder / f"{k}.jpg")
            rows.append({**sample.fields, "target": sample.target, "generated": generated})
            _to_tensorboard(trainer, k, sample, generated)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / "samples.jsonl", lines)


def _image(pixels: Tensor) -> Image.Image:
    """(3, height, width) uint8 as an image."""
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def _to_tensorboard(trainer: Any, k: int, sample: ShownSample, generated: str) -> None:
    if not isinstance(trainer.logger, TensorBoardLogger):
        return
    if sample.image is not None:
        trainer.logger.experiment.add_image(f"sample/{k}", sample.image, trainer.global_step)
    text = f"**target** {sample.target}\n\n**generated** {generated}"
    trainer.logger.experiment.add_text(f"sample/{k}", text, trainer.global_step)
