"""Stage 1, visual knowledge self-distillation: five class tokens learn to say what the frozen language model needs.

LoRA on the vision tower and the projector is trained so that the language model, frozen, predicts the description
that LLaVA itself wrote with all 2,885 visual tokens, from an item's title and its five (paper, section 3.1).
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration

from lavic.batching.padding import IGNORED, PromptBatch
from lavic.errors import UserError
from lavic.model.activation_checkpointing import ActivationCheckpointing, enable_checkpointing
from lavic.model.adapters.directory import load_adapter
from lavic.model.loading import BaseModel, fit_embeddings, load_llava
from lavic.model.parts import TrainableParts, count_trainable, lora_modules, place_adapters, unwrap
from lavic.model.prefix_reuse import FrozenPrefix, split_batch, target_loss
from lavic.model.processor import load_processor, placeholder_ids
from lavic.model.sharding import shard_layers
from lavic.model.speedups import Speedups, speed_up
from lavic.model.text import constant_start
from lavic.model.visual_tokens import Normalise, blank_views, cls_tokens, fill_placeholders, project

log = logging.getLogger(__name__)

CONTROLS = ("loss", "loss_shuffled", "loss_blank")


class Distillation(pl.LightningModule):
    """LLaVA-v1.6 with trainable vision, trained and validated on described images.

    Args:
        base: the checkpoint to start from.
        trainable: what of it is trained.
        speedups: what makes a step cheaper without changing its loss or gradients.
        checkpointing: parts whose activations are computed again in the backward pass: less memory, more time.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        adapter: a saved adapter to start from, or to validate and predict with; null makes a new one.
        max_new_tokens: tokens of a generated description at most.
        seed: of the new adapter's weights (set by the command line from seed_everything).
    """

    blank: Tensor  # (1, 3, side, side) uint8

    def __init__(
        self,
        base: BaseModel,
        trainable: TrainableParts,
        speedups: Speedups = Speedups(),  # noqa: B008  (frozen)
        checkpointing: ActivationCheckpointing = ActivationCheckpointing(),  # noqa: B008  (frozen)
        lr: float = 5e-5,
        weight_decay: float = 1e-5,
        adapter: Path | None = None,
        max_new_tokens: int = 160,
        seed: int = 42,
    ) -> None:
        super().__init__()
        if lr <= 0:
            raise UserError(f"lr is {lr}; it must be above 0.")
        if trainable.language != "frozen":  # what stands before the placeholders then needs a gradient
            speedups = replace(speedups, reuse_prefix=False, no_prompt_gradient=False)
        self.base, self.trainable, self.adapter = base, trainable, adapter
        self.speedups, self.checkpointing = speedups, checkpointing
        self.lr, self.weight_decay, self.max_new_tokens, self.seed = lr, weight_decay, max_new_tokens, seed
        self.model: PeftModel | None = None

    # -- model ---------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Loads the base on this process's device and puts the adapter in; Lightning calls it on every process."""
        if self.model is not None:
            return
        self.processor = load_processor(self.base.name)
        self.placeholder_ids = placeholder_ids(self.processor)
        llava = load_llava(self.base, self.trainer.strategy.root_device)
        fit_embeddings(llava, len(self.processor.tokenizer))
        if self.adapter is None:
            self.model = place_adapters(llava, self.trainable, self.base.name, self.seed)
        else:
            self.model = load_adapter(llava, self.adapter, trainable=True, task="distillation")
        speed_up(self.llava, self.speedups)
        enable_checkpointing(self.llava, self.checkpointing)
        if self.device_mesh is not None:
            shard_layers(self.llava, self.device_mesh["data_parallel"])
        self.prefix = FrozenPrefix(constant_start(self.processor.tokenizer))
        self.model.train()
        log.info(
            "%s of %s parameters are trained; %d modules carry LoRA",
            f"{count_trainable(self):,}",
            f"{sum(p.numel() for p in self.parameters()):,}",
            len(lora_modules(self.model)),
        )
        self.normalise = Normalise(self.processor.image_processor)
        self.register_buffer("blank", blank_views(self.processor.image_processor), persistent=False)

    @property
    def llava(self) -> LlavaNextForConditionalGeneration:
        """The model with its adapter in place."""
        assert self.model is not None, "configure_model comes first"
        return unwrap(self.model)

    def visual_tokens(self, views: Tensor) -> Tensor:
        """(V, 3, side, side) uint8 -> (V, D)."""
        return project(self.llava, cls_tokens(self.llava, self.normalise(views, self.llava.dtype)))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Cuts a batch into what needs a gradient and what does not while it is still on the host."""
        if "labels" in batch:
            prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"], self.placeholder_ids)
            batch["split"] = split_batch(*prompt, self.prefix.ids, self.speedups)
        return batch

    def token_loss(self, batch: dict[str, Any], visual_tokens: Tensor) -> Tensor:
        """The sum of the batch's target-token losses, in nats."""
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        return target_loss(
            self.llava, *prompt, visual_tokens, self.placeholder_ids, prefix=self.prefix, split=batch["split"]
        )

    # -- training ------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """This micro-batch's share of the step's mean loss over all supervised tokens of the global batch.

        The run's log adds the shares up to `train_loss`.
        """
        share = self.token_loss(batch, self.visual_tokens(batch["views"])) / batch["step_targets"]
        # Lightning divides by the accumulation, and DDP averages over the processes; the share is of a sum
        scaled: Tensor = share * self.trainer.accumulate_grad_batches * self.trainer.world_size
        return scaled

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(trainable, lr=self.lr, weight_decay=self.weight_decay)

    # -- validation ----------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Sums over all supervised tokens: the loss, both controls' losses, the tokens, and the samples."""
        self.sums = torch.zeros(len(CONTROLS) + 2, dtype=torch.float64, device=self.device)
        self.blank_token = self.visual_tokens(self.blank)  # (1, D)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Adds up the loss with the right image, with another item's, and with a blank one."""
        own = self.visual_tokens(batch["views"])
        supervised = batch["labels"].ne(IGNORED)
        losses = [
            self.token_loss(batch, own),
            self.token_loss(batch, self.visual_tokens(batch["partner_views"])),
            self.token_loss(batch, self.blank_token.expand(len(own), -1)),
        ]
        self.sums += torch.stack([*losses, supervised.sum(), supervised.any(dim=1).sum()]).double()

    def on_validation_epoch_end(self) -> None:
        """Logs the means over all supervised tokens of the validation set, the same on every process."""
        sums = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        *losses, tokens, samples = (float(x) for x in sums)
        loss, shuffled, blank = (x / tokens for x in losses)
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_perplexity", float(torch.tensor(loss, dtype=torch.float64).exp()))
        self.log("visual_gain", shuffled - loss, prog_bar=True)
        self.log("visual_gain_blank", blank - loss)
        self.log("val_loss_shuffled", shuffled)
        self.log("val_loss_blank", blank)
        self.log("val_samples", samples)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    # -- generation ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def describe(self, batch: PromptBatch) -> list[str]:
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
            {**sample, "generated": text} for sample, text in zip(batch["samples"], self.describe(batch), strict=True)
        ]
