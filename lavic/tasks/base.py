"""What every task shares: a LightningModule that trains a part of LLaVA, and its data module, each written once.

A task says what it is: its report, its adapter, its loss of a batch, its evaluation, its answers. How a step's loss
is shared out, how the model is loaded, placed, sped up and sharded, how the optimizer groups parameters, how batches
are planned and what is said of left-out samples stands here.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from lavic.batching.resumable_loader import ResumableLoader, as_it_is
from lavic.batching.step_plan import Lengths, StepPlan
from lavic.errors import UserError
from lavic.files.rejected import Rejected, reasons_text, write_rejected
from lavic.model.activation_checkpointing import ActivationCheckpointing, enable_checkpointing
from lavic.model.checks import check_files
from lavic.model.loading import BaseModel, fit_embeddings, load_llava
from lavic.model.parts import count_trainable, lora_modules, trained_parameters, unwrap
from lavic.model.processor import load_processor
from lavic.model.sharding import shard_layers
from lavic.model.speedups import Speedups, speed_up
from lavic.ranges import check_number, check_ranges
from lavic.training.card import CardParts
from lavic.training.evaluation_sums import EvaluationSums
from lavic.training.parameter_groups import parameter_groups
from lavic.training.partial_rows import PartialRows
from lavic.training.protocols import TaskReport
from lavic.training.resuming import check_identity, identity_of
from lavic.training.strategies import check_strategy, passes_must_match

log = logging.getLogger(__name__)


class Task(EvaluationSums):
    """A LLaVA of which a part is trained.

    A subclass sets `report` and `adapter_folder`, and gives `build`, `loss_sum` and `card_parts`, its validation, and
    what else its commands need; its docstring says what each option means. `optimizer` takes parameter groups (AdamW if
    None), `scheduler` the optimizer, and is stepped once an optimizer step (a constant learning rate if None).
    """

    report: ClassVar[TaskReport]
    adapter_folder: ClassVar[str]
    adapter_name: ClassVar[str] = "default"  # of PEFT's adapters, the one that is trained and saved
    whole_model_for: ClassVar[tuple[str, ...]] = ("test", "predict")  # generating, whose passes differ by process

    def __init__(
        self,
        base: BaseModel,
        speedups: Speedups,
        checkpointing: ActivationCheckpointing,
        lr: float,
        weight_decay: float,
        part_lr: dict[str, float] | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        check_ranges(lr=lr, weight_decay=weight_decay, seed=seed)
        for part, rate in (part_lr or {}).items():
            check_number(f"part_lr.{part}", "lr", rate)
        self.base, self.speedups, self.checkpointing, self.seed = base, speedups, checkpointing, seed
        self.lr, self.weight_decay, self.part_lr = lr, weight_decay, part_lr or {}
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.counts_flop = False  # set by `Throughput`
        self.model: Any = None  # a PeftModel, or LLaVA itself where no LoRA is trained

    def build(self, llava: PreTrainedModel) -> Any:
        """Puts what is trained into the loaded base, all else frozen."""
        raise NotImplementedError

    def loss_sum(self, batch: Any) -> Tensor:
        """The sum of a training micro-batch's losses over its supervised tokens, in nats; a float32 scalar."""
        raise NotImplementedError

    def card_parts(self, data: Any) -> CardParts:
        """What the model card says of this task's adapter."""
        raise NotImplementedError

    def step_flop(self, batch: Any) -> float | None:
        """FLOP of a training micro-batch, still on the host, by its own lengths; None if the task does not count."""
        return None

    def configure_model(self) -> None:
        """Loads the model on this process's device, and shards it where the strategy asks for it.

        Lightning calls it on every process.
        """
        if self.model is not None:
            return
        check_strategy(self.trainer.strategy)
        if self.device_mesh is not None and self.trainer.state.fn in self.whole_model_for:
            raise UserError(f"{self.trainer.state.fn.value} needs the whole model on each process; use ddp, not FSDP2.")
        self.load_model(self.trainer.strategy.root_device)
        if self.device_mesh is not None:
            shard_layers(self.llava, self.device_mesh["data_parallel"])

    def load_model(self, device: torch.device) -> None:
        """The base with what is trained in it, on `device`."""
        self.processor = self.load_processor()
        llava = load_llava(self.base, device)
        fit_embeddings(llava, len(self.processor.tokenizer))
        self.model = self.build(llava)
        speed_up(self.llava, self.speedups)
        enable_checkpointing(self.llava, self.checkpointing)
        self.train()
        trained, of_all = f"{count_trainable(self):,}", f"{sum(p.numel() for p in self.parameters()):,}"
        adapted = len(lora_modules(self.model))
        log.info("%s of %s parameters are trained; %d modules carry LoRA", trained, of_all, adapted)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning calls it before it loads the parameters, which would fail in torch's words where shapes differ.

        Raises:
            UserError: the checkpoint belongs to another run.
        """
        check_identity(checkpoint.get("identity", {}), identity_of(self.trainer, self))

    def saved_adapters(self) -> list[Path]:
        """The adapters' directories that `build` reads, in the order in which they were trained."""
        return []

    def check_files(self) -> None:
        """Looks at all that is on the disk before anything of it is loaded: the checkpoint, and adapters upon it.

        Raises:
            UserError: a file is missing, cut short or broken, or two that are to work together do not fit.
        """
        check_files(self.base, self.load_processor(), self.saved_adapters())

    def load_processor(self) -> Any:
        """The checkpoint's processor, as this task uses it."""
        return load_processor(self.base.name)

    @property
    def llava(self) -> Any:
        """LLaVA itself, its adapters in place."""
        assert self.model is not None, "configure_model comes first"
        return unwrap(self.model)

    @property
    def passes_must_match(self) -> bool:
        """Whether this process may do nothing in a step that the others do not do."""
        return self._trainer is not None and passes_must_match(self.trainer.strategy)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """This micro-batch's share of the step's mean loss over all supervised tokens of the global batch.

        The run's log adds the shares up to `train_loss`.
        """
        share = self.loss_sum(batch) / batch["step_targets"]
        # Lightning divides by the accumulation, and strategies average over the processes; the share is of a sum
        scaled: Tensor = share * self.trainer.accumulate_grad_batches * self.trainer.world_size
        return scaled

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Notes a training batch's FLOP while its lengths can be read without waiting for the device."""
        if self.counts_flop and self.trainer.training:
            batch["flop"] = self.step_flop(batch)
        return batch

    def partial_rows(self, whole: Path) -> PartialRows:
        """Begins a test's file of answers as they come, beside `whole` in the output directory, and says where it is.

        Every process calls it.
        """
        trainer = self.trainer
        rows = PartialRows(Path(trainer.default_root_dir) / whole, trainer.global_rank, trainer.world_size)
        if trainer.is_global_zero:
            rows.discard()
        trainer.strategy.barrier("partial results")
        rows.add([])
        log.info("Until all is answered, the answers are in %s.", rows.path)
        return rows

    def configure_optimizers(self) -> Any:
        """The optimizer over what is trained, in groups by learning rate and weight decay, and its schedule."""
        groups = parameter_groups(trained_parameters(self.model), self.lr, self.weight_decay, self.part_lr)
        make = self.make_optimizer or torch.optim.AdamW
        optimizer = make(groups)
        part_of = {id(parameter): part for _, parameter, part in trained_parameters(self.model)}
        self.group_parts = [{part_of[id(p)] for p in group["params"]} for group in optimizer.param_groups]
        self.configured_rates = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        if self.make_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.make_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def learning_rates(self) -> dict[str, float]:
        """The present learning rate of each part that is trained; parts without one of their own come first."""
        groups = self.trainer.optimizers[0].param_groups
        pairs = zip(groups, self.group_parts, strict=True)
        rates = {part: float(group["lr"]) for group, parts in pairs for part in sorted(parts)}
        return dict(sorted(rates.items(), key=lambda rate: rate[0] in self.part_lr))

    def on_train_start(self) -> None:
        """Tells a schedule in shares of the run how long the run is; a resumed one may be longer than it was."""
        for config in self.trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "for_steps"):
                config.scheduler.for_steps(int(self.trainer.estimated_stepping_batches), self.trainer.global_step)


class TaskData(pl.LightningDataModule):
    """Batches of a task.

    A subclass sets `left_out_file`, gives `dataset`, `lengths` and `fingerprint`, fills `left_out` in its `setup`, and
    calls `announce` at its end; its docstring says what each option means.
    """

    left_out_file: ClassVar[str] = "skipped_samples.jsonl"  # in the output directory

    def __init__(
        self, batch_size: int, max_samples: int | None, num_workers: int, strict: bool, model_name: str, seed: int
    ) -> None:
        super().__init__()
        check_ranges(batch_size=batch_size, max_samples=max_samples, num_workers=num_workers, seed=seed)
        self.batch_size, self.max_samples, self.num_workers = batch_size, max_samples, num_workers
        self.strict, self.model_name, self.seed = strict, model_name, seed
        self.left_out: list[Rejected] = []
        self.sample_counts: dict[str, int] = {}  # usable samples by split

    def dataset(self, split: str) -> Dataset[Any]:
        """Maps a `MicroBatch` to the batch of a split."""
        raise NotImplementedError

    def lengths(self, split: str) -> tuple[Lengths, Lengths]:
        """Each sample's tokens (or whatever grows with them), and its supervised tokens; both (N,)."""
        raise NotImplementedError

    def kinds(self, split: str) -> Lengths | None:
        """What kind each sample is, (N,), where kinds must not share a forward pass; null where there is one."""
        return None

    def fingerprint(self) -> str:
        """A hash of the training samples, in their order: what a position in an epoch depends on."""
        raise NotImplementedError

    def plan(self, split: str, accumulate: int = 1, seed: int | None = None) -> StepPlan:
        """This process's micro-batches of a split; without a seed in order of length."""
        assert self.trainer is not None
        world_size, rank = self.trainer.world_size, self.trainer.global_rank
        return StepPlan(
            *self.lengths(split), self.batch_size, accumulate, world_size, rank, seed, kinds=self.kinds(split)
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches in the order of the plan, from wherever a resumed run stands."""
        assert self.trainer is not None
        plan = self.plan("train", self.trainer.accumulate_grad_batches, self.seed)
        return ResumableLoader(self.dataset("train"), plan, **self.loader_options())

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation split, each sample once."""
        return self.evaluation_loader("val")

    def evaluation_loader(self, split: str) -> DataLoader[Any]:
        """A split in order of length, each sample once."""
        return DataLoader(self.dataset(split), batch_size=None, sampler=self.plan(split), **self.loader_options())

    def loader_options(self) -> dict[str, Any]:
        """What every loader has: a data set's element is a whole micro-batch, taken as it is."""
        workers = {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        return {**workers, "pin_memory": torch.cuda.is_available(), "collate_fn": as_it_is}

    def announce(self) -> None:
        """Says how many samples there are and were left out, and lists those in the output directory.

        Raises:
            UserError: `strict`, and a sample was left out.
        """
        if self.strict and self.left_out:
            first = self.left_out[0]
            raise UserError(f"{first.where} cannot be used ({first.reason}); mend it, or set strict to false.")
        counts = ", ".join(f"{count} to {split}" for split, count in self.sample_counts.items())
        log.info("Samples: %s; left out: %s", counts, reasons_text(self.left_out) or "none")
        if self.trainer is not None and self.trainer.is_global_zero:
            write_rejected(Path(self.trainer.default_root_dir) / self.left_out_file, self.left_out)
