"""Stage 1, visual knowledge self-distillation: five class tokens learn to say what the frozen language model needs.

LoRA on the vision tower and the projector is trained so that the language model, frozen, predicts the description
that LLaVA itself wrote with all 2,885 visual tokens, from an item's title and its five (paper, section 3.1).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lavic.batching.padding import IGNORED, PromptBatch
from lavic.cost.batches import batch_flop, samples_of
from lavic.model.activation_checkpointing import ActivationCheckpointing
from lavic.model.adapters.directory import load_adapter
from lavic.model.loading import BaseModel
from lavic.model.parts import TrainableParts, place_adapters
from lavic.model.prefix_reuse import FrozenPrefix, segment_batch, shared_prefix_loss
from lavic.model.processor import placeholder_ids
from lavic.model.speedups import Speedups
from lavic.model.text import constant_start
from lavic.model.visual_tokens import Normalise, blank_views, cls_tokens, fill_placeholders, project
from lavic.ranges import check_ranges
from lavic.tasks.base import Task
from lavic.tasks.distillation.batches import DescribedBatch
from lavic.tasks.distillation.card import card_parts
from lavic.training.card import CardParts
from lavic.training.protocols import VAL_LOSS, VAL_PERPLEXITY, VAL_SAMPLES, VISUAL_GAIN, Metric, TaskReport

CONTROLS = ("loss", "loss_shuffled", "loss_blank")


class Distillation(Task):
    """LLaVA-v1.6 with trainable vision, trained and validated on described images.

    Args:
        base: the checkpoint to start from.
        trainable: what of it is trained.
        speedups: what makes a step cheaper without changing its loss or gradients.
        checkpointing: parts whose activations are computed again in the backward pass: less memory, more time.
        lr: the optimizer's learning rate.
        weight_decay: the optimizer's weight decay; biases and norms have none.
        part_lr: learning rates of `vision`, `projector` or `language` where they differ from `lr`.
        optimizer: a class path of an optimizer; null takes AdamW.
        scheduler: a class path of a learning-rate schedule, such as lavic.training.schedules.WarmupCosine; null
            keeps the rate constant.
        adapter: a saved adapter to start from, or to validate and predict with; null makes a new one.
        max_new_tokens: tokens of a generated description at most.
        seed: of the new adapter's weights (set by the command line from seed_everything).
    """

    report = TaskReport(
        "distillation",
        "LaViC stage 1: vision adapter",
        (
            VAL_LOSS,
            VAL_PERPLEXITY,
            VISUAL_GAIN,
            Metric("visual_gain_blank", "gain over a blank image", "nats a token", better="higher"),
            Metric("val_loss_shuffled", "val_loss, shuffled images", "nats a token"),
            Metric("val_loss_blank", "val_loss, blank images", "nats a token"),
            VAL_SAMPLES,
        ),
    )
    adapter_folder = "vision_lora_adapter_best"
    whole_model_for = ("predict",)

    blank: Tensor  # (1, 3, side, side) uint8

    def __init__(
        self,
        base: BaseModel,
        trainable: TrainableParts,
        speedups: Speedups = Speedups(),  # noqa: B008  (frozen)
        checkpointing: ActivationCheckpointing = ActivationCheckpointing(),  # noqa: B008  (frozen)
        lr: float = 5e-5,
        weight_decay: float = 1e-5,
        part_lr: dict[str, float] | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        adapter: Path | None = None,
        max_new_tokens: int = 160,
        seed: int = 42,
    ) -> None:
        if trainable.language != "frozen":  # what stands before the placeholders then needs a gradient
            speedups = replace(speedups, reuse_prefix=False, no_prompt_gradient=False)
        super().__init__(base, speedups, checkpointing, lr, weight_decay, part_lr, optimizer, scheduler, seed)
        check_ranges(max_new_tokens=max_new_tokens)
        self.trainable, self.adapter, self.max_new_tokens = trainable, adapter, max_new_tokens

    def saved_adapters(self) -> list[Path]:
        """The one to go on with, if any."""
        return [self.adapter] if self.adapter else []

    def build(self, llava: Any) -> Any:
        """A new adapter on the parts to train, or the saved one."""
        if self.adapter is None:
            return place_adapters(llava, self.trainable, self.base.name, self.seed)
        return load_adapter(
            llava, self.adapter, True, task=self.report.task, parts=self.trainable, any_base=self.base.any_base
        )

    def load_model(self, device: torch.device) -> None:
        """The model, and what turns images and prompts into its input."""
        super().load_model(device)
        self.placeholder_ids = placeholder_ids(self.processor)
        self.prefix = FrozenPrefix(constant_start(self.processor.tokenizer))
        self.normalise = Normalise(self.processor.image_processor)
        self.register_buffer("blank", blank_views(self.processor.image_processor), persistent=False)

    def card_parts(self, data: Any) -> CardParts:
        """What the model card says."""
        return card_parts(self.base.name, data)

    def visual_tokens(self, views: Tensor) -> Tensor:
        """(V, 3, side, side) uint8 -> (V, D)."""
        return project(self.llava, cls_tokens(self.llava, self.normalise(views, self.llava.dtype)))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Cuts a batch into what needs a gradient and what does not while it is still on the host."""
        if "labels" in batch:
            prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"], self.placeholder_ids)
            batch["segments"] = segment_batch(*prompt, self.prefix.ids, self.speedups)
        return super().on_before_batch_transfer(batch, dataloader_idx)

    def step_flop(self, batch: DescribedBatch) -> float:
        """Of vision, projector and language model, with the speedups that are on."""
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"], self.placeholder_ids)
        samples = samples_of(*prompt, batch["segments"].prefix_length)
        return batch_flop(self.llava.config, self.trainable, samples, self.speedups)

    def token_loss(self, batch: DescribedBatch, visual_tokens: Tensor) -> Tensor:
        """The sum of the batch's target-token losses, in nats."""
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        return shared_prefix_loss(
            self.llava, *prompt, visual_tokens, self.placeholder_ids, prefix=self.prefix, segments=batch["segments"]
        )

    def loss_sum(self, batch: DescribedBatch) -> Tensor:
        """Of a batch with its own images."""
        return self.token_loss(batch, self.visual_tokens(batch["views"]))

    def on_validation_epoch_start(self) -> None:
        """Starts the sums, and makes the visual token of a blank image."""
        self.start_sums((*CONTROLS, "tokens", "samples"))
        self.blank_token = self.visual_tokens(self.blank)  # (1, D)

    def validation_step(self, batch: DescribedBatch, batch_idx: int) -> None:
        """Adds up the loss with the right image, with another item's, and with a blank one."""
        own = self.visual_tokens(batch["views"])
        supervised = batch["labels"].ne(IGNORED)
        self.add(
            loss=self.token_loss(batch, own),
            loss_shuffled=self.token_loss(batch, self.visual_tokens(batch["partner_views"])),
            loss_blank=self.token_loss(batch, self.blank_token.expand(len(own), -1)),
            tokens=supervised.sum(),
            samples=supervised.any(dim=1).sum(),
        )

    def on_validation_epoch_end(self) -> None:
        """Logs the means over all supervised tokens of the validation set, the same on every process."""
        sums = self.total_sums()
        loss, shuffled, blank = (sums[name] / sums["tokens"] for name in CONTROLS)
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_perplexity", float(torch.tensor(loss, dtype=torch.float64).exp()))
        self.log("visual_gain", shuffled - loss, prog_bar=True)
        self.log("visual_gain_blank", blank - loss)
        self.log("val_loss_shuffled", shuffled)
        self.log("val_loss_blank", blank)
        self.log("val_samples", sums["samples"])

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    @torch.no_grad()
    def answer(self, batch: PromptBatch) -> list[str]:
        """What the model says of each item, decoded greedily: what its five tokens carry."""
        embeds = self.llava.get_input_embeddings()(batch["input_ids"])
        embeds = fill_placeholders(embeds, batch["input_ids"], self.visual_tokens(batch["views"]), self.placeholder_ids)
        tokenizer = self.processor.tokenizer
        tokens = self.llava.generate(
            inputs_embeds=embeds,
            attention_mask=batch["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[dict[str, Any]]:
        """The batch's samples with what was `generated` for each."""
        return [
            {**sample, "generated": text} for sample, text in zip(batch["samples"], self.answer(batch), strict=True)
        ]
