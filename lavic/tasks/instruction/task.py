"""Instruction tuning: a LLaVA learns the answers of conversations, about images or about none.

LLaVA's own two stages are two settings of it: the projector alone on captions (`configs/align.yaml`), then LoRA or the
whole language model with the projector on conversations (`configs/instruct.yaml`).
"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lavic.batching.padding import IGNORED
from lavic.cost.batches import multimodal_batch_flop
from lavic.errors import UserError
from lavic.model.activation_checkpointing import ActivationCheckpointing
from lavic.model.adapters.directory import load_adapter
from lavic.model.adapters.metadata import read_metadata, require_base
from lavic.model.adapters.projector import start_from
from lavic.model.chat_text import stop_ids
from lavic.model.image_entry import ImageEntry, ImageReader, touch
from lavic.model.loading import BaseModel, load_config
from lavic.model.multimodal_batch import MultimodalBatch, answers, loss_sum, prepare, visual_tokens
from lavic.model.parts import Short, TrainableParts, parts_of, place_adapters, unwrap
from lavic.model.speedups import Speedups
from lavic.model.visual_tokens import blank_views
from lavic.ranges import check_ranges
from lavic.tasks.base import Task
from lavic.tasks.instruction.batches import RecordBatch, RecordPrompts
from lavic.tasks.instruction.card import card_parts
from lavic.tasks.instruction.questions import Question
from lavic.training.card import CardParts
from lavic.training.protocols import VAL_LOSS, VAL_PERPLEXITY, VAL_SAMPLES, VISUAL_GAIN, Metric, TaskReport

SUMS = ("loss", "tokens", "samples", "seen", "shuffled", "blank", "seen_tokens")


class Instruction(Task):
    """Any LLaVA, trained and validated on instruction records.

    Args:
        base: the checkpoint to start from.
        trainable: what of it is trained, part by part, or by a short name: `lora` is LoRA on the language model and
            the projector in full, `full` everything, `freeze_vision` all but the vision tower, `projector` that alone.
        entry: how images enter; as the data's.
        speedups: what makes a step cheaper without changing its loss or gradients.
        checkpointing: parts whose activations are computed again in the backward pass: less memory, more time.
        lr: the optimizer's learning rate.
        weight_decay: the optimizer's weight decay; biases and norms have none.
        part_lr: learning rates of `vision`, `projector` or `language` where they differ from `lr`.
        optimizer: a class path of an optimizer; null takes AdamW.
        scheduler: a class path of a learning-rate schedule, such as lavic.training.schedules.WarmupCosine; null
            keeps the rate constant.
        adapter: a saved adapter to start from, or to validate and predict with; null makes a new one.
        projector: a projector to start from where there is no adapter, which the run then trains in full: the
            directory that configs/align.yaml leaves, or LLaVA's mm_projector.bin; null takes the checkpoint's.
        max_new_tokens: tokens of a generated answer at most.
        seed: of the new adapter's weights (set by the command line from seed_everything).
    """

    report = TaskReport(
        "instruction",
        "LLaVA tuned on conversations",
        (
            VAL_LOSS,
            VAL_PERPLEXITY,
            VISUAL_GAIN,
            Metric("visual_gain_blank", "gain over a blank image", "nats a token", better="higher"),
            Metric("val_loss_seen", "val_loss, records with images", "nats a token"),
            VAL_SAMPLES,
        ),
    )
    adapter_folder = "instruction_adapter_best"
    whole_model_for = ("predict",)

    blank: Tensor  # (1, 3, side, side) uint8

    def __init__(
        self,
        base: BaseModel,
        trainable: TrainableParts | Short,
        entry: ImageEntry = ImageEntry(),  # noqa: B008  (frozen)
        speedups: Speedups = Speedups(),  # noqa: B008  (frozen)
        checkpointing: ActivationCheckpointing = ActivationCheckpointing(),  # noqa: B008  (frozen)
        lr: float = 2e-5,
        weight_decay: float = 0.0,
        part_lr: dict[str, float] | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        adapter: Path | None = None,
        projector: Path | None = None,
        max_new_tokens: int = 128,
        seed: int = 42,
    ) -> None:
        super().__init__(base, speedups, checkpointing, lr, weight_decay, part_lr, optimizer, scheduler, seed)
        check_ranges(max_new_tokens=max_new_tokens)
        self.trainable, self.entry = parts_of(trainable), entry
        self.adapter, self.projector, self.max_new_tokens = adapter, projector, max_new_tokens
        if projector is not None and self.trainable.projector != "full":
            raise UserError(  # what is not trained is not saved, and the checkpoint below has another
                f"projector is {projector} and trainable.projector {self.trainable.projector}; set that to full, or"
                " export the projector into a checkpoint and start from it."
            )

    def setup(self, stage: str) -> None:
        """Raises a UserError where the data's images enter otherwise than the model's."""
        theirs = self.trainer.datamodule.entry  # type: ignore[attr-defined]
        if theirs != self.entry:
            raise UserError(f"data.init_args.entry is {theirs}, and model.init_args.entry {self.entry}; give one.")

    def load_processor(self) -> Any:
        """The processor that counts and cuts as `entry` says."""
        self.reader = ImageReader(self.base.name, load_config(self.base.name), self.entry)
        return self.reader.processor

    def saved_adapters(self) -> list[Path]:
        """The one to go on with, if any."""
        return [self.adapter] if self.adapter else []

    def check_files(self) -> None:
        """As of every task; a projector that was trained alone belongs to a base as well."""
        super().check_files()
        if self.projector is not None and self.projector.is_dir() and not self.base.any_base:
            known = read_metadata(self.projector)
            if known is not None:
                require_base(self.projector, known, self.base.name)

    def build(self, llava: Any) -> Any:
        """New adapters on the parts to train, or the saved ones."""
        if self.adapter is not None:
            return load_adapter(
                llava, self.adapter, True, task=self.report.task, parts=self.trainable, any_base=self.base.any_base
            )
        model = place_adapters(llava, self.trainable, self.base.name, self.seed, self.entry.tokens)
        if self.projector is not None:
            start_from(unwrap(model), self.projector)  # now that it is float32
        return model

    def load_model(self, device: torch.device) -> None:
        """The model, and what turns images into its input."""
        super().load_model(device)
        self.normalise = self.reader.normaliser()
        self.register_buffer("blank", blank_views(self.reader.image_processor), persistent=False)
        self.stop_ids = stop_ids(self.base.name, self.processor.tokenizer)

    def card_parts(self, data: Any) -> CardParts:
        """What the model card says."""
        return card_parts(self.base.name, self.trainable.modes(), data)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Adds what depends on lengths and sizes while a batch is still on the host."""
        for part in (batch, *([batch["shuffled"]] if "shuffled" in batch else [])):
            prepare(part, self.reader, self.speedups)
        return super().on_before_batch_transfer(batch, dataloader_idx)

    def step_flop(self, batch: RecordBatch) -> float:
        """Of vision, projector and language model, by the rows' own lengths."""
        patches = self.entry.tokens == "patch"
        return multimodal_batch_flop(self.llava.config, self.trainable, batch, self.speedups, patches)

    def visual_tokens(self, batch: MultimodalBatch, views: Tensor | None = None) -> Tensor:
        """A batch's visual tokens, (N, D), of its own views or of others as many; none for text alone."""
        return visual_tokens(self.llava, self.reader, self.normalise, batch, views)

    def token_loss(self, batch: MultimodalBatch, visual_tokens: Tensor) -> Tensor:
        """The sum of the batch's supervised tokens' losses, in nats."""
        return loss_sum(self.llava, self.reader, batch, visual_tokens)

    def loss_sum(self, batch: RecordBatch) -> Tensor:
        """Of a batch with its own images; text alone does not run the tower, and still gives every part a gradient."""
        loss = self.token_loss(batch, self.visual_tokens(batch))
        return loss if "views" in batch else loss + touch(self.llava)

    def on_validation_epoch_start(self) -> None:
        """Starts the sums."""
        self.start_sums(SUMS)

    def validation_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Adds up the loss; with images also that with another record's, and with blank ones."""
        supervised = batch["labels"].ne(IGNORED)
        loss, tokens = self.token_loss(batch, self.visual_tokens(batch)), supervised.sum()
        self.add(loss=loss, tokens=tokens, samples=supervised.any(dim=1).sum())
        if "shuffled" in batch:
            other = batch["shuffled"]
            blank = self.visual_tokens(batch, self.blank.expand(len(batch["views"]), -1, -1, -1))
            self.add(
                seen=loss,
                seen_tokens=tokens,
                shuffled=self.token_loss(other, self.visual_tokens(other)),
                blank=self.token_loss(batch, blank),
            )

    def on_validation_epoch_end(self) -> None:
        """Logs the means over all supervised tokens of the validation set, the same on every process."""
        sums = self.total_sums()
        loss = sums["loss"] / sums["tokens"]
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_perplexity", float(torch.tensor(loss, dtype=torch.float64).exp()))
        if sums["seen_tokens"]:
            self.log("visual_gain", (sums["shuffled"] - sums["seen"]) / sums["seen_tokens"], prog_bar=True)
            self.log("visual_gain_blank", (sums["blank"] - sums["seen"]) / sums["seen_tokens"])
            self.log("val_loss_seen", sums["seen"] / sums["seen_tokens"])
        self.log("val_samples", sums["samples"])

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    @torch.no_grad()
    def answer(self, batch: RecordPrompts) -> list[str]:
        """What the model answers to each record's last question, decoded greedily."""
        seen = self.visual_tokens(batch)
        return answers(self.llava, self.reader, batch, seen, self.max_new_tokens, self.stop_ids)

    def predict_step(self, batch: RecordPrompts, batch_idx: int) -> list[dict[str, Any]]:
        """The batch's records with what was `generated` for each; questions in their file's form."""
        model = str(self.adapter or self.base.name)
        return [
            sample.answered(text, model) if isinstance(sample, Question) else {**sample, "generated": text}
            for sample, text in zip(batch["samples"], self.answer(batch), strict=True)
        ]
