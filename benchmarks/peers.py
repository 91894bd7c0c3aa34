"""Samples/s of instruction tuning beside the programs that users know: `python -m benchmarks peers`.

The same LLaVA, records, batch size, dtype, learning rate and threads, each program in a process of its own and in
turns, so that a round's ratio compares neighbours in time. Ours is `python -m lavic fit` as it is typed; theirs is
transformers' Trainer (`benchmarks/peers_trainer.py`), once with the same records in every step as ours (which an
ordinary user does not have) and once in its own random order. That both train alike is checked first, without dropout,
by the losses of the first steps. Where LoRA is trained on the language model, two more take turns:

* TRL's SFTTrainer, where it is installed (`pip install trl`, into an environment of its own with LaViC's packages);
* LLaMA-Factory (`benchmarks/peers_llama_factory.py`), with `--llama_factory PYTHON` of its own environment. It draws
  LoRA's first numbers elsewhere, so only the first step's loss is the same.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.peers_options import Options
from benchmarks.peers_records import write
from benchmarks.turns import Contender
from lavic.batching.step_plan import StepPlan
from lavic.tasks.instruction import InstructionData

ROOT = Path(__file__).parents[1]
SEED, LR, RANK, DROPOUT = 42, 2e-4, 24, 0.05  # r 128 of 4,096 is 24 of 768
ALIKE, CHECKED = 1e-4, 4  # of losses; steps
OURS, SAME, RANDOM = ("ours", ""), ("Trainer", "the same"), ("Trainer", "random")
TRL, FACTORY = "SFTTrainer", "LLaMA-Factory"
Told = dict[tuple[str, str], list[dict[str, Any]]]
WAYS = {  # what is trained: its name in the table, and how ours says it, part by part
    "lora": ("LoRA and projector", ("frozen", "full", "lora")),
    "projector": ("projector alone", ("frozen", "full", "frozen")),
    "vision": ("LoRA on tower and projector, of a LLaVA-1.6", ("lora", "lora", "frozen")),
}


class Peers:
    """The programs on one set of records.

    Args:
        folder: receives checkpoint, images, records and what runs leave.
        way: of `WAYS`. With the language model frozen all records have an image: a step of text alone gives no
            gradient, at which transformers' Trainer stops.
        records: how many there are, a multiple of 16 batches: every step is full then, of theirs too.
        batch: records of a step.
        toy: so small that the program can be checked in seconds; its figures mean nothing.
        llama_factory: the Python of LLaMA-Factory's environment.
    """

    def __init__(
        self, folder: Path, way: str, records: int, batch: int, toy: bool, llama_factory: str | None = None
    ) -> None:
        self.folder, self.way, self.batch, self.llama_factory = folder, way, batch, llama_factory
        self.records = write(folder, records, way == "lora", way == "vision", toy)
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}
        self.runs = 0

    def in_our_order(self, steps: int) -> Path:
        """The records in the order in which our first steps have them, each of as many; a file like theirs."""
        data = InstructionData(
            self.records, self.records, self.folder / "images", "mistral", batch_size=self.batch, seed=SEED,
            model_name=str(self.folder / "base"), cache_dir=self.folder / "cache",
        )  # fmt: skip
        data.prepare_data()
        plan = StepPlan(*data.lengths("train"), self.batch, seed=SEED, kinds=data.kinds("train"))
        by_id = {record["id"]: record for record in json.loads(self.records.read_text(encoding="utf-8"))}
        ordered: list[Any] = []
        while len(ordered) < steps * self.batch:
            ordered += [by_id[name] for one in plan for name in data.sample_names(list(one.indices))]
            plan.set_epoch(plan.epoch + 1)
        path = self.folder / "in_our_order.json"
        path.write_text(json.dumps(ordered), encoding="utf-8")
        return path

    def ours(self, turn: int, steps: int, dropout: float) -> Contender:
        """`python -m lavic fit`."""
        self.runs += 1
        output = self.folder / f"run_{self.runs}"
        lora = f"{{r: {RANK}, alpha: {2 * RANK}, dropout: {dropout}}}"
        entry = "init_args.entry={tokens: patch, shape: null}"
        vision, projector, language = WAYS[self.way][1]
        return Contender(
            [
                "lavic", "fit", f"--config={ROOT}/configs/instruct.yaml", f"--seed_everything={SEED}",
                f"--model.init_args.base.name={self.folder / 'base'}", "--model.init_args.base.dtype=float32",
                f"--model.init_args.trainable.vision={vision}", f"--model.init_args.trainable.projector={projector}",
                f"--model.init_args.trainable.language={language}", f"--model.init_args.trainable.lora={lora}",
                "--model.init_args.checkpointing.language=none", f"--model.{entry}", f"--data.{entry}",
                f"--model.init_args.lr={LR}", "--model.init_args.part_lr=null", "--model.init_args.scheduler=null",
                f"--data.init_args.train_data={self.records}", f"--data.init_args.val_data={self.records}",
                f"--data.init_args.images_dir={self.folder / 'images'}",
                "--data.init_args.template=mistral", f"--data.init_args.batch_size={self.batch}",
                "--data.init_args.num_workers=1", f"--data.init_args.cache_dir={self.folder / 'cache'}",
                "--trainer.accelerator=cpu", "--trainer.accumulate_grad_batches=1", f"--trainer.max_steps={steps}",
                "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0",
                f"--trainer.default_root_dir={output}", f"--logs_dir={output / 'logs'}",
                f"--trainer.callbacks+={{class_path: benchmarks.peers_ours.Turns, init_args: {{steps: {turn}}}}}",
            ],
            self.environment,
            self.folder / f"said_{self.runs}.txt",
        )  # fmt: skip

    def theirs(
        self, turn: int, steps: int, dropout: float, records: Path, order: str, program: str = "Trainer"
    ) -> Contender:
        """One of the others."""
        self.runs += 1
        given = Options(
            base=self.folder / "base", records=records, images=self.folder / "images", way=self.way, program=program,
            order=order, batch=self.batch, steps=turn, max_steps=steps, rank=RANK, dropout=dropout, lr=LR, seed=SEED,
        )  # fmt: skip
        said = self.folder / f"said_{self.runs}.txt"
        if program == FACTORY:
            assert self.llama_factory is not None
            own = {name: value for name, value in self.environment.items() if name != "PYTHONPATH"}
            return Contender(["benchmarks.peers_llama_factory", *given.arguments()], own, said, self.llama_factory)
        return Contender(["benchmarks.peers_trainer", *given.arguments()], self.environment, said)

    def check_alike(self, steps: int) -> dict[str, float]:
        """The largest relative difference of the first steps' losses to each program's.

        Raises AssertionError over `ALIKE`; LLaMA-Factory draws LoRA's first numbers elsewhere, so of its steps the
        first must be alike.
        """
        records = self.in_our_order(steps + 1)
        own = self.first_losses(self.ours(steps, steps + 1, 0.0))
        assert own[-1] != own[0]
        differences = {}
        for program in ["Trainer", *self.others()]:
            theirs = self.first_losses(self.theirs(steps, steps + 1, 0.0, records, "sequential", program))
            each = [abs(one / other - 1) for one, other in zip(own, theirs, strict=True)]
            compared = each[:1] if program == FACTORY else each
            assert max(compared) < ALIKE, f"{program}'s losses differ: {own} {theirs}"
            differences[program] = max(each)
        return differences

    def others(self) -> list[str]:
        """Which programs there are besides transformers' Trainer."""
        found = [TRL] * bool(find_spec("trl")) + [FACTORY] * bool(self.llama_factory)
        return found if self.way == "lora" else []

    @staticmethod
    def first_losses(contender: Contender) -> list[float]:
        """Of its first turn, after which it ends."""
        try:
            losses: list[float] = contender.turn()["losses"]
        finally:
            contender.end()
        return losses

    def measure(self, rounds: int, turn: int) -> Told:
        """What every contender tells of every round; the first, in which everything is new, is left out."""
        steps = (rounds + 1) * turn + 1
        with ExitStack() as ending:
            contenders = {
                SAME: self.theirs(turn, steps, DROPOUT, self.in_our_order(steps), "sequential"),
                OURS: self.ours(turn, steps, DROPOUT),
                RANDOM: self.theirs(turn, steps, DROPOUT, self.records, "random"),
            }
            for program in self.others():
                contenders[program, "random"] = self.theirs(turn, steps, DROPOUT, self.records, "random", program)
            for contender in contenders.values():
                ending.callback(contender.end)
            told = [{name: contender.turn() for name, contender in contenders.items()} for _ in range(rounds + 1)]
        return {name: [one[name] for one in told[1:]] for name in contenders}


def rows_of(way: str, told: Told, samples: int, alike: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each program and order of theirs."""
    rows = []
    for name in (name for name in told if name != OURS):
        program, order = name
        pairs = list(zip(told[name], told[OURS], strict=True))
        ratios = [theirs["seconds"] / own["seconds"] for theirs, own in pairs]
        cpu, own_cpu = (sum(one["CPU seconds"] for one in told[one_of]) for one_of in (name, OURS))
        rows.append({
            "trained": WAYS[way][0],
            "beside": program,
            "their order": order,
            "theirs samples/s": round(statistics.median(samples / theirs["seconds"] for theirs, _ in pairs), 3),
            "ours samples/s": round(statistics.median(samples / own["seconds"] for _, own in pairs), 3),
            "ratio": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
            "ratio of CPU seconds": round(cpu / own_cpu, 3),
            "peak MB, theirs and ours": " ".join(str(round(told[n][-1]["peak MB"])) for n in (name, OURS)),
            "mean loss, theirs and ours": " ".join(f"{mean_loss(told[n]):.3f}" for n in (name, OURS)),
            "first losses differ by": f"{alike[program]:.1e}",
        })  # fmt: skip
    return rows


def mean_loss(turns: list[dict[str, Any]]) -> float:
    """Of all their steps."""
    return statistics.fmean(loss for turn in turns for loss in turn["losses"])


def run(
    rounds: int = 8, turn: int = 2, batch: int = 4, records: int = 64, toy: bool = False,
    ways: Sequence[str] = tuple(WAYS), llama_factory: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measures and returns a table.

    Args:
        rounds: turns of each contender, best whole epochs of them.
        turn: optimizer steps of a turn.
        batch: records of a step.
        records: how many there are.
        toy: checks the program only.
        ways: what is trained, of `WAYS`.
        llama_factory: the Python of LLaMA-Factory's environment; it takes part where it is given.
    """
    rows = []
    for way in ways:
        with tempfile.TemporaryDirectory() as folder:
            peers = Peers(Path(folder), way, records, batch, toy, llama_factory)
            alike = peers.check_alike(CHECKED)
            found = rows_of(way, peers.measure(rounds, turn), turn * batch, alike)
            print(*found, sep="\n", file=sys.stderr)
            rows += found
    return {"batch": batch, "rounds": rounds, "samples a round": turn * batch, "threads of each": 1, "rows": rows}
