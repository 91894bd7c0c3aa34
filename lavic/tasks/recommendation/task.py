"""Stage 2, recommendation prompt tuning: the language model learns to name the right one of the candidates.

A second LoRA on the language model is trained to answer a conversation with an item's ID; the vision, and stage 1's
adapter in it, stays as it was (paper, section 3.2).
"""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration

from lavic.errors import UserError
from lavic.evaluation.ranking import named_item
from lavic.model.activation_checkpointing import ActivationCheckpointing, enable_checkpointing
from lavic.model.adapters.fused_lora import fuse_lora
from lavic.model.adapters.stacking import RECOMMENDATION, stack_adapters
from lavic.model.loading import BaseModel, fit_embeddings, load_llava
from lavic.model.loss import target_loss
from lavic.model.parts import Lora, count_trainable, unwrap
from lavic.model.processor import load_processor, placeholder_ids
from lavic.model.scoring import PromptState
from lavic.model.visual_tokens import project
from lavic.tasks.recommendation.choices import CONTROLS, NO_IMAGES, OWN, SHUFFLED
from lavic.tasks.recommendation.results import SCORED, Answer, summary_lines, write_results

log = logging.getLogger(__name__)


class Recommendation(pl.LightningModule):
    """LLaVA-v1.6 with stage 1's adapter, and an adapter on the language model that is trained to recommend.

    Args:
        base: the checkpoint that stage 1 started from.
        distilled: stage 1's adapter directory; null leaves the vision as it was pretrained.
        adapter: a saved recommendation adapter to start from, or to validate, test and predict with; null makes a
            new one.
        lora: a new adapter's shape; it goes on every Linear of the language model, the output head excluded.
        checkpointing: parts whose activations are computed again in the backward pass: less memory, more time.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        max_new_tokens: tokens of a freely generated answer at most.
        seed: of the new adapter's weights (set by the command line from seed_everything).
    """

    adapter_name = RECOMMENDATION  # of PEFT's adapters, the one to save

    def __init__(
        self,
        base: BaseModel,
        distilled: Path | None = Path("out_distilled/vision_lora_adapter_best"),
        adapter: Path | None = None,
        lora: Lora | None = None,
        checkpointing: ActivationCheckpointing = ActivationCheckpointing(),  # noqa: B008  (frozen)
        lr: float = 5e-5,
        weight_decay: float = 1e-5,
        max_new_tokens: int = 16,
        seed: int = 42,
    ) -> None:
        super().__init__()
        if lr <= 0:
            raise UserError(f"lr is {lr}; it must be above 0.")
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {max_new_tokens}; it must be at least 1.")
        self.base, self.lora = base, lora or Lora()
        self.distilled = Path(distilled) if distilled else None
        self.adapter = Path(adapter) if adapter else None
        self.lr, self.weight_decay, self.max_new_tokens, self.seed = lr, weight_decay, max_new_tokens, seed
        self.checkpointing = checkpointing
        self.model: PeftModel | None = None

    # -- model ---------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Loads the base on this process's device and puts both adapters in; Lightning calls it on every process."""
        if self.model is not None:
            return
        self.load_model(self.trainer.strategy.root_device)

    def load_model(self, device: torch.device) -> None:
        """The base with both adapters, on `device`."""
        self.processor = load_processor(self.base.name)
        self.placeholder_ids = placeholder_ids(self.processor)
        llava = load_llava(self.base, device)
        fit_embeddings(llava, len(self.processor.tokenizer))
        self.model = stack_adapters(llava, self.distilled, self.adapter, self.lora, self.base.name, self.seed)
        fuse_lora(self.model)
        enable_checkpointing(llava, self.checkpointing)
        log.info("%s parameters are trained, stage 2's adapter alone", f"{count_trainable(self):,}")
        self.train()

    def train(self, mode: bool = True) -> "Recommendation":
        """Training mode, except for what stage 1 trained: its adapter's dropout stays off."""
        super().train(mode)
        if self.model is not None:
            self.llava.model.vision_tower.eval()
            self.llava.model.multi_modal_projector.eval()
        return self

    @property
    def llava(self) -> LlavaNextForConditionalGeneration:
        """The model with its adapters in place."""
        assert self.model is not None, "configure_model comes first"
        return unwrap(self.model)

    @torch.no_grad()
    def visual_tokens(self, cls_tokens: Tensor) -> Tensor:
        """(V, C) out of the item store -> (V, D), by the projector with stage 1's adapter."""
        return project(self.llava, cls_tokens.to(self.llava.dtype))

    @torch.no_grad()
    def read(self, batch: dict[str, Any]) -> PromptState:
        """A batch of `ChoiceEncoder.batch` after its forward pass."""
        visual_tokens = self.visual_tokens(batch["cls_tokens"])
        return PromptState(self.llava, batch["input_ids"], batch["attention_mask"], visual_tokens, self.placeholder_ids)

    # -- training ------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """This micro-batch's share of the step's mean loss over all supervised tokens of the global batch.

        The run's log adds the shares up to `train_loss`.
        """
        loss = target_loss(
            self.llava,
            batch["input_ids"],
            batch["attention_mask"],
            batch["labels"],
            self.visual_tokens(batch["cls_tokens"]),
            self.placeholder_ids,
        )
        share = loss / batch["step_targets"]
        # Lightning divides by the accumulation, and DDP averages over the processes; the share is of a sum
        scaled: Tensor = share * self.trainer.accumulate_grad_batches * self.trainer.world_size
        return scaled

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the recommendation adapter."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(trainable, lr=self.lr, weight_decay=self.weight_decay)

    # -- validation ----------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Sums over the samples: for the own images and each control, losses and hits; target tokens; samples."""
        self.sums = torch.zeros(2 * (1 + len(CONTROLS)) + 2, dtype=torch.float64)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Adds up the targets' losses, and how often the target is the likeliest candidate."""
        if not batch["rows"]:
            return
        sums: list[float] = []
        for name in (OWN, *CONTROLS):
            answers, unscored = batch[name]["answers"], batch[name]["unscored"]
            scores = self.read(batch[name]).scores(answers, unscored)
            sums.append(-sum(float(s[t]) for s, t in zip(scores, batch["targets"], strict=True)))
            sums.append(sum(int(s.argmax()) == t for s, t in zip(scores, batch["targets"], strict=True)))
        own = batch[OWN]
        tokens = [len(own["answers"][i][t]) - own["unscored"][i] for i, t in enumerate(batch["targets"])]
        self.sums += torch.tensor([*sums, sum(tokens), len(tokens)], dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Logs means over all target tokens and over all samples, the same on every process."""
        reduced = self.trainer.strategy.reduce(self.sums.to(self.device), reduce_op="sum")
        *sums, tokens, samples = (float(x) for x in reduced)
        losses = dict(zip((OWN, *CONTROLS), (x / tokens for x in sums[::2]), strict=True))
        hits = dict(zip((OWN, *CONTROLS), (x / samples for x in sums[1::2]), strict=True))
        self.log("val_loss", losses[OWN], prog_bar=True)
        self.log("val_perplexity", float(torch.tensor(losses[OWN], dtype=torch.float64).exp()))
        self.log("visual_gain", losses[SHUFFLED] - losses[OWN], prog_bar=True)
        self.log("visual_gain_no_images", losses[NO_IMAGES] - losses[OWN])
        self.log("val_hit_ratio", hits[OWN], prog_bar=True)
        for control in CONTROLS:
            self.log(f"val_loss_{control}", losses[control])
            self.log(f"val_hit_ratio_{control}", hits[control])
        self.log("val_samples", samples)

    # -- test ----------------------------------------------------------------------------------------------------

    def on_test_epoch_start(self) -> None:
        """Answers by the conversation's row."""
        self.answers: dict[int, Answer] = {}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Asks each conversation in every way: generated, constrained, scored, and the controls scored."""
        if not batch["rows"]:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        tokenizer, eos_id = self.processor.tokenizer, self.processor.tokenizer.eos_token_id
        own = batch[OWN]
        state = self.read(own)
        generated = tokenizer.batch_decode(state.decode(self.max_new_tokens, eos_id), skip_special_tokens=True)
        constrained = state.decode(self.max_new_tokens, eos_id, own["answers"])
        scores = {SCORED: state.scores(own["answers"], own["unscored"])}
        del state
        for control in CONTROLS:
            asked = batch[control]
            scores[control] = self.read(asked).scores(asked["answers"], asked["unscored"])
        for i, row in enumerate(batch["rows"]):
            candidates = data.conversations[data.test_split][row].candidates
            self.answers[row] = Answer(
                response=generated[i].strip(),
                recommended=named_item(generated[i], candidates, data.items),
                constrained=candidates[own["answers"][i].index([*constrained[i], eos_id])],
                scores={way: tuple(several[i].tolist()) for way, several in scores.items()},
            )

    def on_test_epoch_end(self) -> None:
        """Brings all processes' answers together, writes the files and logs the main numbers."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        parts: list[Any] = [self.answers]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.answers)
        answers = {row: answer for part in parts for row, answer in part.items()}
        conversations = data.conversations[data.test_split]
        run = {"model": self.base.name, "distilled": str(self.distilled), "adapter": str(self.adapter)}
        if self.trainer.is_global_zero:
            ordered = [answers[row] for row in range(len(conversations))]
            folder = Path(self.trainer.default_root_dir)
            metrics = write_results(folder, data.candidates, conversations, ordered, run, self.seed)
            for line in summary_lines(metrics["groups"]):
                log.info("%s", line)
            for way, values in metrics["groups"]["all"]["overall"]["ways"].items():
                for name, interval in values.items():
                    self.log(f"test_{way}_{name}", interval["value"], rank_zero_only=True)

    # -- prediction ----------------------------------------------------------------------------------------------

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Each conversation's candidates, the likeliest first, with their log-likelihoods in nats."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not batch["rows"]:
            return []
        scores = self.read(batch[OWN]).scores(batch[OWN]["answers"], batch[OWN]["unscored"])
        rows = []
        for own, row in zip(scores, batch["rows"], strict=True):
            conversation = data.conversations[data.test_split][row]
            ranked = sorted(zip(own.tolist(), conversation.candidates, strict=True), reverse=True)
            ranking = [{"item": item, "log_likelihood": score} for score, item in ranked]
            rows.append({"category": conversation.category, "line": conversation.line, "ranking": ranking})
        return rows
