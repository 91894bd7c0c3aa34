"""A few validation samples with their target and the generated text, so that people see what is learned."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from PIL import Image
from torch import Tensor

from lavic.files import write_text
from lavic.ranges import check_ranges
from lavic.training.protocols import ShownSample, ShowsSamples

WHOLE_MODEL = (SingleDeviceStrategy, DDPStrategy)  # on every process; others would wait in a collective


class ValidationSamples(pl.Callback):
    """After each validation in training, has the same few samples answered.

    They go to TensorBoard, to W&B as a table, and to `samples/epoch_N/` in the run's folder of `logs/`: `K.jpg` where
    there is an image, and `samples.jsonl` with the fields, the target and the generated text of each.

    Args:
        count: samples answered, chosen by chance.
    """

    def __init__(self, count: int = 4) -> None:
        check_ranges(count=count)
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
        rows: list[dict[str, Any]] = []
        images: list[Image.Image | None] = []
        for k, sample in enumerate(data.shown_samples(self.count)):
            with torch.random.fork_rng(), trainer.precision_plugin.forward_context():
                [generated] = pl_module.answer(trainer.strategy.batch_to_device(sample.batch))
            images.append(None if sample.image is None else _image(sample.image))
            if image := images[-1]:
                image.save(folder / f"{k}.jpg")
            rows.append({**sample.fields, "target": sample.target, "generated": generated})
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    _to_tensorboard(logger, trainer.global_step, k, sample, generated)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                _to_wandb(logger, trainer.global_step, images, rows)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(folder / "samples.jsonl", lines)


def _image(pixels: Tensor) -> Image.Image:
    """(3, height, width) uint8 as an image."""
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def _to_tensorboard(logger: TensorBoardLogger, step: int, k: int, sample: ShownSample, generated: str) -> None:
    if sample.image is not None:
        logger.experiment.add_image(f"sample/{k}", sample.image, step)
    text = f"**target** {sample.target}\n\n**generated** {generated}"
    logger.experiment.add_text(f"sample/{k}", text, step)


def _to_wandb(logger: WandbLogger, step: int, images: list[Image.Image | None], rows: list[dict[str, Any]]) -> None:
    """One table: image, what was asked, target, generated text."""
    import wandb

    data = [
        [None if image is None else wandb.Image(image), *(str(value) for value in row.values())]
        for image, row in zip(images, rows, strict=True)
    ]
    logger.log_table("samples", columns=["image", *rows[0]], data=data, step=step)
