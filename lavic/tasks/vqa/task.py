"""Visual question answering: a LLaVA learns to answer in a few words, and is judged by what it generates."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lavic.batching.padding import IGNORED
from lavic.cost.batches import multimodal_batch_flop
from lavic.evaluation.exact_match import Mode, exact_match, token_f1
from lavic.model.activation_checkpointing import ActivationCheckpointing
from lavic.model.adapters.directory import load_adapter
from lavic.model.loading import BaseModel
from lavic.model.multimodal_batch import MultimodalBatch, SupervisedBatch, answers, loss_sum, prepare, visual_tokens
from lavic.model.parts import Short, TrainableParts, parts_of, place_adapters
from lavic.model.speedups import PLAIN
from lavic.ranges import check_ranges
from lavic.tasks.base import Task
from lavic.tasks.vqa.batches import AskedBatch
from lavic.tasks.vqa.card import card_parts
from lavic.tasks.vqa.encoding import question_reader
from lavic.tasks.vqa.prompt import Question
from lavic.tasks.vqa.results import (
    CONTROLS,
    DETAILS,
    FOLDER,
    Answered,
    debug_view,
    printed_block,
    result_row,
    write_results,
)
from lavic.training.card import CardParts
from lavic.training.protocols import VAL_LOSS, VAL_PERPLEXITY, VAL_SAMPLES, VISUAL_GAIN, Metric, TaskReport
from lavic.training.used_adapter import UsedAdapter

log = logging.getLogger(__name__)

LOSSES = ("loss", "loss_shuffled", "loss_no_image")


class Vqa(Task):
    """A LLaVA with its own visual tokens, trained on questions and answers.

    Args:
        base: the checkpoint to start from.
        trainable: what of it is trained, part by part, or by a short name: `lora` is LoRA on the language model and
            the projector in full, `full` everything, `freeze_vision` all but the vision tower, `projector` that alone.
        checkpointing: parts whose activations are computed again in the backward pass: less memory, more time.
        lr: the optimizer's learning rate.
        weight_decay: the optimizer's weight decay; biases and norms have none.
        part_lr: learning rates of `vision`, `projector` or `language` where they differ from `lr`.
        optimizer: a class path of an optimizer; null takes AdamW.
        scheduler: a class path of a learning-rate schedule, such as lavic.training.schedules.WarmupCosine; null
            keeps the rate constant.
        adapter: a saved adapter to start from, or to validate, test and predict with; null makes a new one.
        max_new_tokens: tokens of an answer at most, its end counted.
        use_text_normalization: whether exact match in front of `metrics.json` is SQuAD's; false puts the strict one
            there. Both are always written.
        debug_exact_match: whether a test shows its first five answers with what they are compared as.
        seed: of new weights (set by the command line from seed_everything).
    """

    report = TaskReport(
        "vqa",
        "LaViC: visual question answering",
        (
            Metric("val_exact_match", "exact match", better="higher"),
            VAL_LOSS,
            VISUAL_GAIN,
            VAL_PERPLEXITY,
            Metric("val_token_f1", "token F1", better="higher"),
            Metric("val_exact_match_strict", "exact match, strict", better="higher"),
            Metric("visual_gain_no_image", "gain over no image", "nats a token", better="higher"),
            Metric("val_loss_shuffled", "val_loss, shuffled images", "nats a token"),
            Metric("val_loss_no_image", "val_loss, no image", "nats a token"),
            Metric("val_errors", "questions that could not be asked", form=".0f"),
            VAL_SAMPLES,
        ),
        monitored="val_exact_match",
    )
    adapter_folder = "vqa_adapter_best"
    whole_model_for = ("fit", "validate", "test", "predict")  # each generates, whose passes differ by process

    def __init__(
        self,
        base: BaseModel,
        trainable: TrainableParts | Short,
        checkpointing: ActivationCheckpointing = ActivationCheckpointing(),  # noqa: B008  (frozen)
        lr: float = 2e-4,
        weight_decay: float = 0.0,
        part_lr: dict[str, float] | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        adapter: Path | None = None,
        max_new_tokens: int = 32,
        use_text_normalization: bool = True,
        debug_exact_match: bool = False,
        seed: int = 42,
    ) -> None:
        speedups = replace(PLAIN, fused_lora=True, target_logits_only=True)
        super().__init__(base, speedups, checkpointing, lr, weight_decay, part_lr, optimizer, scheduler, seed)
        check_ranges(max_new_tokens=max_new_tokens)
        self.trainable, self.adapter, self.max_new_tokens = parts_of(trainable), adapter, max_new_tokens
        self.use_text_normalization, self.debug_exact_match = use_text_normalization, debug_exact_match

    def saved_adapters(self) -> list[Path]:
        """The one to go on with, if any."""
        return [self.adapter] if self.adapter else []

    def build(self, llava: Any) -> Any:
        """A new adapter on the parts to train, or the saved one."""
        if self.adapter is None:
            return place_adapters(llava, self.trainable, self.base.name, self.seed, entry="patch")
        return load_adapter(llava, self.adapter, True, task="vqa", parts=self.trainable, any_base=self.base.any_base)

    def load_processor(self) -> Any:
        """With the checkpoint's native grids."""
        self.reader = question_reader(self.base.name)
        return self.reader.processor

    def load_model(self, device: torch.device) -> None:
        """The model, what turns images into its input, and the tokens that end an answer."""
        super().load_model(device)
        self.normalise = self.reader.normaliser()
        ends = self.llava.generation_config.eos_token_id
        self.end_ids = {self.processor.tokenizer.eos_token_id}
        self.end_ids |= set(ends) if isinstance(ends, list) else {ends} - {None}

    def card_parts(self, data: Any) -> CardParts:
        """What the model card says."""
        return card_parts(self.base.name, data)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Adds what depends on lengths and sizes while a batch is still on the host."""
        parts: list[Any] = [batch] if "labels" in batch else [part for part in batch.values() if isinstance(part, dict)]
        for part in parts:
            prepare(part, self.reader, self.speedups)
        return super().on_before_batch_transfer(batch, dataloader_idx)

    def step_flop(self, batch: SupervisedBatch) -> float:
        """Of vision, projector and language model, by the rows' own lengths."""
        return multimodal_batch_flop(self.llava.config, self.trainable, batch, self.speedups)

    def loss_sum(self, batch: SupervisedBatch) -> Tensor:
        """Over the answers' tokens."""
        return self.target_loss(batch)

    def target_loss(self, taught: MultimodalBatch) -> Tensor:
        """The sum of the answers' tokens' losses in a batch of `QuestionEncoder.batch`, in nats."""
        return loss_sum(self.llava, self.reader, taught, self.visual_tokens(taught))

    def visual_tokens(self, batch: MultimodalBatch) -> Tensor:
        """A batch's visual tokens, (N, D); none without images."""
        return visual_tokens(self.llava, self.reader, self.normalise, batch)

    def on_validation_epoch_start(self) -> None:
        """Starts the sums."""
        self.start_sums((*LOSSES, "tokens", "samples", "squad", "strict", "f1", "errors"))

    def validation_step(self, batch: AskedBatch, batch_idx: int) -> None:
        """Adds up the losses with the own image, another and none, and what the generated answers are worth."""
        self.add(errors=len(batch["errors"]))
        if not batch["questions"]:
            return
        truths = [question["answer"] for question in batch["questions"]]
        said = list(zip(self.answer(batch["own"]), truths, strict=True))
        self.add(
            loss=self.target_loss(batch["taught"]),
            loss_shuffled=self.target_loss(batch["taught_shuffled_images"]),
            loss_no_image=self.target_loss(batch["taught_no_image"]),
            tokens=batch["taught"]["labels"].ne(IGNORED).sum(),
            samples=len(truths),
            squad=sum(exact_match(response, truth) for response, truth in said),
            strict=sum(exact_match(response, truth, "strict") for response, truth in said),
            f1=sum(token_f1(response, truth) for response, truth in said),
        )

    def on_validation_epoch_end(self) -> None:
        """Logs means over all supervised tokens and over all answered questions, the same on every process."""
        sums = self.total_sums()
        own, shuffled, no_image = (sums[name] / max(1.0, sums["tokens"]) for name in LOSSES)
        samples = max(1.0, sums["samples"])
        self.log("val_exact_match", sums["squad"] / samples, prog_bar=True)
        self.log("val_exact_match_strict", sums["strict"] / samples)
        self.log("val_token_f1", sums["f1"] / samples)
        self.log("val_loss", own, prog_bar=True)
        self.log("val_perplexity", float(torch.tensor(own, dtype=torch.float64).exp()))
        self.log("visual_gain", shuffled - own, prog_bar=True)
        self.log("visual_gain_no_image", no_image - own)
        self.log("val_loss_shuffled", shuffled)
        self.log("val_loss_no_image", no_image)
        self.log("val_errors", sums["errors"])
        self.log("val_samples", sums["samples"])

    @torch.no_grad()
    def answer(self, batch: MultimodalBatch) -> list[str]:
        """The greedily generated answers to a batch of `QuestionEncoder.batch`, without spaces at their ends."""
        ends = self.end_ids | {self.trainer.datamodule.encoder.end_id}  # type: ignore[attr-defined]
        return answers(self.llava, self.reader, batch, self.visual_tokens(batch), self.max_new_tokens, ends)

    def on_test_epoch_start(self) -> None:
        """Answers by the question's place in the file, and where they stand as they come."""
        self.answered: dict[int, Answered] = {}
        self.partial = self.partial_rows(Path(FOLDER) / DETAILS)

    def test_step(self, batch: AskedBatch, batch_idx: int) -> None:
        """Asks each question, and again under the controls."""
        came = [Answered(Question(**unasked), None, 0.0, error=reason) for unasked, reason in batch["errors"]]
        came += self._asked([Question(**question) for question in batch["questions"]], batch)
        self.answered.update((one.question.sample_id, one) for one in came)
        self.partial.add(map(result_row, came))

    def _asked(self, questions: list[Question], batch: AskedBatch) -> list[Answered]:
        """What the model says to a batch's questions, of which there may be none."""
        if not questions:
            return []
        start = time.perf_counter()
        said = self.answer(batch["own"])
        seconds = (time.perf_counter() - start) / len(questions)
        controls: list[dict[str, str]] = [{} for _ in questions]
        for name in CONTROLS:
            if name in batch:
                places = batch["described"] if name == "no_description" else range(len(questions))
                for place, response in zip(places, self.answer(batch[name]), strict=True):
                    controls[place][name] = response
        return [
            Answered(question, response, seconds, others)
            for question, response, others in zip(questions, said, controls, strict=True)
        ]

    def on_test_epoch_end(self) -> None:
        """Brings all processes' answers together, writes the files, and prints and logs the numbers."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        parts: list[Any] = [self.answered]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self.answered)
        answered = [one for part in parts for one in part.values()]
        if not self.trainer.is_global_zero:
            return
        config = {
            "model": self.base.name, **UsedAdapter.of(self.adapter).described(),
            "test_data": str(data.files["test"]), "images_dir": str(data.images_dir), "instruction": data.instruction,
            "knowledge": {"mode": data.knowledge.mode, "path": str(data.knowledge.path)}, "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens, "left_out": len(data.left_out),
        }  # fmt: skip
        mode: Mode = "squad" if self.use_text_normalization else "strict"
        metrics = write_results(Path(self.trainer.default_root_dir), answered, config, mode, self.seed)
        self.partial.discard()
        for line in printed_block(metrics) + (debug_view(answered) if self.debug_exact_match else []):
            log.info("%s", line)
        for name in ("exact_match_score", "token_f1", "ceiling", "errors", "total_samples"):
            if name in metrics:
                self.log(f"test_{name}", float(metrics[name]), rank_zero_only=True)

    def predict_step(self, batch: AskedBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Each question with its answer."""
        rows = [{**_asked(question), "response": None, "error": reason} for question, reason in batch["errors"]]
        said = self.answer(batch["own"]) if batch["questions"] else []
        answered = zip(batch["questions"], said, strict=True)
        return rows + [{**_asked(question), "response": response} for question, response in answered]


def _asked(question: dict[str, Any]) -> dict[str, Any]:
    return {name: question[name] for name in ("sample_id", "image", "question")}
