"""Stage 2, recommendation prompt tuning: the language model learns to name the right one of the candidates.

A second LoRA on the language model is trained to answer a conversation with an item's ID; the vision, and stage 1's
adapter in it, stays as it was (paper, section 3.2).
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lavic.cost.batches import batch_flop, samples_of, start_of_all
from lavic.errors import UserError
from lavic.evaluation.item_ids import named_item
from lavic.model.activation_checkpointing import ActivationCheckpointing
from lavic.model.adapters.stacking import RECOMMENDATION, stack_adapters
from lavic.model.loading import BaseModel
from lavic.model.parts import Lora, TrainableParts
from lavic.model.prefix_reuse import segment_batch, shared_prefix_loss
from lavic.model.processor import placeholder_ids
from lavic.model.scoring import PromptState
from lavic.model.speedups import PLAIN, Speedups
from lavic.model.visual_tokens import project
from lavic.ranges import check_ranges
from lavic.tasks.base import Task
from lavic.tasks.recommendation.batches import (
    CONTROLS,
    NO_IMAGES,
    OWN,
    SHUFFLED,
    WAYS,
    CandidatesBatch,
    ChoiceBatch,
    EvaluationBatch,
)
from lavic.tasks.recommendation.card import card_parts
from lavic.tasks.recommendation.end_to_end import write_end_to_end
from lavic.tasks.recommendation.results import SCORED, Answer, result_row, results_file, summary_lines, write_results
from lavic.training.card import CardParts
from lavic.training.protocols import VAL_LOSS, VAL_PERPLEXITY, VAL_SAMPLES, VISUAL_GAIN, Metric, TaskReport
from lavic.training.used_adapter import UsedAdapter

log = logging.getLogger(__name__)

SHORTEST_LIMIT = 16  # tokens of a generated answer: an ASIN's ten letters and its end are fewer
# What of the speedups a trained language model leaves; the start is one of a batch's rows, not kept for longer.
SHARED_START = replace(PLAIN, target_logits_only=True, reuse_prefix=True)
LANGUAGE_LORA = TrainableParts(vision="frozen", projector="frozen", language="lora")


class Recommendation(Task):
    """LLaVA-v1.6 with stage 1's adapter, and an adapter on the language model that is trained to recommend.

    Args:
        base: the checkpoint that stage 1 started from.
        distilled: stage 1's adapter directory; null leaves the vision as it was pretrained.
        adapter: a saved recommendation adapter to start from, or to validate, test and predict with; null makes a
            new one.
        trainable: what of it is trained: LoRA on the language model, its output head excluded; only the adapter's
            shape, `lora`, can be chosen.
        lora: the same shape by the name that files of earlier releases have; null takes that of `trainable`.
        checkpointing: parts whose activations are computed again in the backward pass: less memory, more time.
        lr: the optimizer's learning rate.
        weight_decay: the optimizer's weight decay; biases and norms have none.
        part_lr: the learning rate of `language` where it differs from `lr`.
        optimizer: a class path of an optimizer; null takes AdamW.
        scheduler: a class path of a learning-rate schedule, such as lavic.training.schedules.WarmupCosine; null
            keeps the rate constant.
        max_new_tokens: tokens of a freely generated answer at most; null takes as many as the catalogue's longest ID
            needs, and 16 at least.
        seed: of the new adapter's weights (set by the command line from seed_everything).
    """

    report = TaskReport(
        "recommendation",
        "LaViC stage 2: recommendation adapter",
        (
            VAL_LOSS,
            Metric("val_hit_ratio", "val_hit_ratio", better="higher"),
            VISUAL_GAIN,
            VAL_PERPLEXITY,
            Metric("visual_gain_no_images", "gain over no images", "nats a token", better="higher"),
            Metric("val_loss_no_images", "val_loss, no images", "nats a token"),
            Metric("val_loss_shuffled_images", "val_loss, shuffled images", "nats a token"),
            Metric("val_hit_ratio_no_images", "val_hit_ratio, no images"),
            Metric("val_hit_ratio_shuffled_images", "val_hit_ratio, shuffled images"),
            VAL_SAMPLES,
        ),
    )
    adapter_folder = "recommendation_lora_adapter_best"
    adapter_name = RECOMMENDATION

    def __init__(
        self,
        base: BaseModel,
        distilled: Path | None = Path("out_distilled/vision_lora_adapter_best"),
        adapter: Path | None = None,
        trainable: TrainableParts = LANGUAGE_LORA,
        lora: Lora | None = None,
        checkpointing: ActivationCheckpointing = ActivationCheckpointing(),  # noqa: B008  (frozen)
        lr: float = 5e-5,
        weight_decay: float = 1e-5,
        part_lr: dict[str, float] | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        max_new_tokens: int | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__(base, Speedups(), checkpointing, lr, weight_decay, part_lr, optimizer, scheduler, seed)
        check_ranges(max_new_tokens=max_new_tokens)
        if trainable.modes() != LANGUAGE_LORA.modes():
            asked = ", ".join(f"{part}: {mode}" for part, mode in trainable.modes().items())
            raise UserError(
                f"trainable is {asked}; this task trains LoRA on the language model alone, so set vision and projector"
                " to frozen and language to lora."
            )
        self.trainable = replace(trainable, lora=lora) if lora else trainable
        self.lora = self.trainable.lora
        self.distilled = Path(distilled) if distilled else None
        self.adapter = Path(adapter) if adapter else None
        self.max_new_tokens = max_new_tokens

    def saved_adapters(self) -> list[Path]:
        """Stage 1's, and the one to go on with, where they are given."""
        return [folder for folder in (self.distilled, self.adapter) if folder]

    def build(self, llava: Any) -> Any:
        """Both adapters, of which the second is trained."""
        return stack_adapters(
            llava, self.distilled, self.adapter, self.lora, self.base.name, self.seed, self.base.any_base
        )

    def load_model(self, device: torch.device) -> None:
        """The model, and which tokens its images take the place of."""
        super().load_model(device)
        self.placeholder_ids = placeholder_ids(self.processor)

    def card_parts(self, data: Any) -> CardParts:
        """What the model card says."""
        return card_parts(self.base.name, self.distilled, data)

    def train(self, mode: bool = True) -> "Recommendation":
        """Training mode, except for what stage 1 trained: its adapter's dropout stays off."""
        super().train(mode)
        if self.model is not None:
            self.llava.model.vision_tower.eval()
            self.llava.model.multi_modal_projector.eval()
        return self

    @torch.no_grad()
    def visual_tokens(self, cls_tokens: Tensor) -> Tensor:
        """(V, C) out of the item store -> (V, D), by the projector with stage 1's adapter."""
        return project(self.llava, cls_tokens.to(self.llava.dtype))

    @torch.no_grad()
    def read(self, batch: CandidatesBatch) -> PromptState:
        """A batch of `ChoiceEncoder.batch` after its forward pass."""
        visual_tokens = self.visual_tokens(batch["cls_tokens"])
        return PromptState(self.llava, batch["input_ids"], batch["attention_mask"], visual_tokens, self.placeholder_ids)

    def loss_sum(self, batch: ChoiceBatch) -> Tensor:
        """Of the targets' IDs."""
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        visual_tokens = self.visual_tokens(batch["cls_tokens"])
        return shared_prefix_loss(self.llava, *prompt, visual_tokens, self.placeholder_ids, segments=batch["segments"])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Finds a training batch's image tokens and targets while it is on the host, so that no step waits."""
        if "labels" in batch:
            prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"], self.placeholder_ids)
            # Each pass of sharded weights waits for the other processes, which may have a batch of one row.
            shares = len(batch["input_ids"]) > 1 and not self.passes_must_match
            start = batch["input_ids"][0].tolist() if shares else ()
            batch["segments"] = segment_batch(*prompt, start, SHARED_START)
        return super().on_before_batch_transfer(batch, dataloader_idx)

    def step_flop(self, batch: ChoiceBatch) -> float:
        """Of the language model; images come as class tokens, and the projector is a ten-thousandth of it."""
        shared = batch["segments"].prefix_length
        samples = samples_of(batch["input_ids"], batch["attention_mask"], batch["labels"], prefix=shared)
        starts = [start_of_all(shared)] if shared else []
        return batch_flop(self.llava.config, self.trainable, [*samples, *starts], SHARED_START)

    def on_validation_epoch_start(self) -> None:
        """Starts the sums: for the own images and each control, losses and hits; target tokens; samples."""
        self.start_sums([*(f"loss_{way}" for way in WAYS), *(f"hits_{way}" for way in WAYS), "tokens", "samples"])

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Adds up the targets' losses, and how often the target is the likeliest candidate."""
        for way in WAYS:  # a ghost too: with sharded weights the other processes wait for its passes
            scores = self.read(batch[way]).scores(batch[way]["answers"], batch[way]["unscored"])
            if batch["rows"]:
                pairs = list(zip(scores, batch["targets"], strict=True))
                self.add(**{f"loss_{way}": -sum(float(score[target]) for score, target in pairs)})
                self.add(**{f"hits_{way}": sum(int(score.argmax()) == target for score, target in pairs)})
        if batch["rows"]:
            own = batch[OWN]
            tokens = [len(own["answers"][i][t]) - own["unscored"][i] for i, t in enumerate(batch["targets"])]
            self.add(tokens=sum(tokens), samples=len(tokens))

    def on_validation_epoch_end(self) -> None:
        """Logs means over all target tokens and over all samples, the same on every process."""
        sums = self.total_sums()
        losses = {way: sums[f"loss_{way}"] / sums["tokens"] for way in WAYS}
        hits = {way: sums[f"hits_{way}"] / sums["samples"] for way in WAYS}
        self.log("val_loss", losses[OWN], prog_bar=True)
        self.log("val_perplexity", float(torch.tensor(losses[OWN], dtype=torch.float64).exp()))
        self.log("visual_gain", losses[SHUFFLED] - losses[OWN], prog_bar=True)
        self.log("visual_gain_no_images", losses[NO_IMAGES] - losses[OWN])
        self.log("val_hit_ratio", hits[OWN], prog_bar=True)
        for control in CONTROLS:
            self.log(f"val_loss_{control}", losses[control])
            self.log(f"val_hit_ratio_{control}", hits[control])
        self.log("val_samples", sums["samples"])

    def on_test_epoch_start(self) -> None:
        """Answers by the conversation's row, and how long a generated one may be."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.answers: dict[int, Answer] = {}
        self.partial = self.partial_rows(results_file(data.candidates))
        self.answer_tokens = self.max_new_tokens or max(SHORTEST_LIMIT, data.longest_id())

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Asks each conversation in every way: generated, constrained, scored, and the controls scored."""
        if not batch["rows"]:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        tokenizer, eos_id = self.processor.tokenizer, self.processor.tokenizer.eos_token_id
        own = batch[OWN]
        state = self.read(own)
        decoded = state.decode(self.answer_tokens, eos_id)
        generated = tokenizer.batch_decode(decoded, skip_special_tokens=True)
        constrained = state.decode(self.answer_tokens, eos_id, own["answers"])
        scores = {SCORED: state.scores(own["answers"], own["unscored"])}
        del state
        for control in CONTROLS:
            asked = batch[control]
            scores[control] = self.read(asked).scores(asked["answers"], asked["unscored"])
        for i, row in enumerate(batch["rows"]):
            candidates = data.conversations[data.test_split][row].candidates
            self.answers[row] = Answer(
                response=generated[i].strip(),
                recommended=named_item(
                    generated[i], candidates, data.items, ended=len(decoded[i]) < self.answer_tokens
                ),
                constrained=candidates[own["answers"][i].index([*constrained[i], eos_id])],
                scores={way: tuple(several[i].tolist()) for way, several in scores.items()},
                tokens=tuple(len(answer) - own["unscored"][i] for answer in own["answers"][i]),
            )
        answered = [(data.conversations[data.test_split][row], self.answers[row]) for row in batch["rows"]]
        self.partial.add(result_row(data.candidates, *pair) for pair in answered)

    def on_test_epoch_end(self) -> None:
        """Brings all processes' answers together, writes the files and logs the main numbers."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        parts: list[Any] = [self.answers]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.answers)
        answers = {row: answer for part in parts for row, answer in part.items()}
        rows = sorted(answers)  # all, unless --trainer.limit_test_batches asked for fewer
        conversations = [data.conversations[data.test_split][row] for row in rows]
        adapter = UsedAdapter.of(self.adapter).described()
        run = {"model": self.base.name, "distilled": str(self.distilled), **adapter}
        if self.trainer.is_global_zero:
            if len(rows) < len(data.conversations[data.test_split]):
                log.warning("%d of %d conversations were tested.", len(rows), len(data.conversations[data.test_split]))
            ordered = [answers[row] for row in rows]
            folder = Path(self.trainer.default_root_dir)
            metrics = write_results(folder, data.candidates, conversations, ordered, run, self.seed)
            lines = summary_lines(metrics["groups"])
            if data.retrieved:
                unmatched, k = data.unmatched[data.test_split], data.retrieved.k
                lines += write_end_to_end(folder, conversations, ordered, unmatched, k, self.seed)
            self.partial.discard()
            for line in lines:
                log.info("%s", line)
            for way, values in metrics["groups"]["all"]["overall"]["ways"].items():
                for name, interval in values.items():
                    self.log(f"test_{way}_{name}", interval["value"], rank_zero_only=True)

    def predict_step(self, batch: EvaluationBatch, batch_idx: int) -> list[dict[str, Any]]:
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
