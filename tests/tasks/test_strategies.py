"""Every task x every strategy: the weights of one process, or one sentence. The table says which."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from tests.tasks.cases import CASES, assert_refused, batch, fit_arguments
from tests.training.command_line import ROOT, losses, run, validation

NF4 = (  # its kernels round otherwise by batch size; AdamW must not make a whole step of a gradient that is rounding
    "--model.init_args.base.quantization=nf4",
    "--model.init_args.optimizer=torch.optim.AdamW",
    "--model.init_args.optimizer.eps=1e-4",
)


@dataclass(frozen=True)
class Way:
    """How a step of 4 samples is trained: `one` is what it must equal."""

    options: tuple[str, ...] = ()
    processes: int = 1
    batch_size: int = 4
    accumulate: int = 1
    one: tuple[str, ...] = ()  # options that the run on one process has too
    stopped: int = 0  # after so many steps, and resumed


def sharded(data: int, tensor: int) -> tuple[str, ...]:
    return (
        f"--config={ROOT}/configs/with/fsdp2.yaml",
        f"--trainer.strategy.init_args.data_parallel_size={data}",
        f"--trainer.strategy.init_args.tensor_parallel_size={tensor}",
    )


def zero(processes: int) -> tuple[str, ...]:
    return (f"--config={ROOT}/configs/with/zero2.yaml", f"--trainer.devices={processes}")


WAYS = {
    "resume": Way(batch_size=2, accumulate=2, stopped=2),
    "ddp": Way(("--trainer.strategy=ddp",), 2, 2),
    "ddp, accumulated": Way(("--trainer.strategy=ddp",), 2, 1, 2),
    "fsdp2": Way(sharded(2, 1), 2, 2),
    "fsdp2, resumed": Way(sharded(2, 1), 2, 1, 2, stopped=2),
    "zero2": Way(zero(2), 2, 2),
    "zero2, accumulated": Way(zero(2), 2, 1, 2),
    "zero2, resumed": Way(zero(2), 2, 1, 2, stopped=2),
    "zero3": Way(("--trainer.strategy=deepspeed_stage_3",), 2, 2),
    "nf4, resumed": Way(NF4, 1, 2, 2, NF4, stopped=2),
    "nf4, ddp": Way((*NF4, "--trainer.strategy=ddp"), 2, 2, 1, NF4),
    "nf4, fsdp2": Way((*NF4, *sharded(2, 1)), 2, 2, 1, NF4),
    "tensor parallel": Way(sharded(1, 2), 2, 2),
    "fsdp of torch 1": Way(("--trainer.strategy=fsdp",), 2, 2),
}
SAME = None  # as one process
TABLE: dict[str, dict[str, str | None]] = {  # a task's way -> SAME, or what the refusal names
    "distillation": {
        "resume": SAME,
        "ddp": SAME,
        "ddp, accumulated": SAME,
        "fsdp2": SAME,
        "fsdp2, resumed": SAME,
        "zero2": SAME,
        "zero2, accumulated": SAME,
        "zero2, resumed": SAME,
        "zero3": "with/zero2.yaml",
        "nf4, resumed": SAME,
        "nf4, ddp": SAME,
        "nf4, fsdp2": SAME,
        "tensor parallel": "tensor_parallel_size",
        "fsdp of torch 1": "strategy",
    },
    "recommendation": {
        "resume": SAME,
        "ddp": SAME,
        "ddp, accumulated": SAME,
        "fsdp2": SAME,
        "fsdp2, resumed": SAME,
        "zero2": SAME,
        "zero2, accumulated": SAME,
        "zero2, resumed": SAME,
        "zero3": "with/zero2.yaml",
        "nf4, resumed": SAME,
        "nf4, ddp": SAME,
        "nf4, fsdp2": SAME,
        "tensor parallel": "tensor_parallel_size",
        "fsdp of torch 1": "strategy",
    },
    "instruction": {
        "resume": SAME,
        "ddp": SAME,
        "ddp, accumulated": SAME,
        "fsdp2": SAME,
        "fsdp2, resumed": SAME,
        "zero2": SAME,
        "zero2, accumulated": SAME,
        "zero2, resumed": SAME,
        "zero3": "with/zero2.yaml",
        "nf4, resumed": SAME,
        "nf4, ddp": SAME,
        "nf4, fsdp2": SAME,
        "tensor parallel": "tensor_parallel_size",
        "fsdp of torch 1": "strategy",
    },
    "vqa": {  # every validation generates, which processes must not do together
        "resume": SAME,
        "ddp": SAME,
        "ddp, accumulated": SAME,
        "fsdp2": "fit needs the whole model on each process; use ddp, not FSDP2",
        "fsdp2, resumed": "fit needs the whole model on each process; use ddp, not FSDP2",
        "zero2": SAME,
        "zero2, accumulated": SAME,
        "zero2, resumed": SAME,
        "zero3": "with/zero2.yaml",
        "nf4, resumed": SAME,
        "nf4, ddp": SAME,
        "nf4, fsdp2": "fit needs the whole model on each process; use ddp, not FSDP2",
        "tensor parallel": "tensor_parallel_size",
        "fsdp of torch 1": "strategy",
    },
}
QUICK = {
    ("distillation", "resume"),
    ("recommendation", "ddp"),
    ("recommendation", "fsdp2"),
    ("instruction", "ddp"),
    ("vqa", "resume"),
}
ROWS = [
    pytest.param(task, way, expected, id=f"{task}-{way}", marks=[] if (task, way) in QUICK else [pytest.mark.slow])
    for task, ways in TABLE.items()
    for way, expected in ways.items()
]


class Runs:
    """Each task's files, and its run on one process, made once."""

    def __init__(self, tiny: Path, folder: Path) -> None:
        self.tiny, self.folder = tiny, folder
        self.options = cache(self._options)
        self.one_process = cache(self._one_process)

    def _options(self, task: str) -> list[str]:
        return CASES[task].prepare(self.tiny, self.folder / task)

    def _one_process(self, task: str, more: tuple[str, ...]) -> Path:
        output = self.folder / f"one_{task}_{len(more)}"
        run([*fit_arguments(self.options(task), output), *batch(4, 1), *more], output)
        return output


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tiny, tmp_path_factory.mktemp("strategies"))


def test_the_table_knows_every_task_and_every_way() -> None:
    assert TABLE.keys() == CASES.keys()
    assert all(ways.keys() == WAYS.keys() for ways in TABLE.values())


@pytest.mark.parametrize(("task", "way", "expected"), ROWS)
def test_a_task_trains_as_on_one_process_or_is_refused(
    runs: Runs, tmp_path: Path, task: str, way: str, expected: str | None
) -> None:
    chosen, output = WAYS[way], tmp_path / "out"
    if set(NF4) <= set(chosen.options):
        pytest.importorskip("bitsandbytes")
    arguments = [*fit_arguments(runs.options(task), output), *batch(chosen.batch_size, chosen.accumulate)]
    arguments += chosen.options
    if expected is not SAME:
        said = run(arguments, output, chosen.processes, status=2, strategy=None)
        assert_refused(said, expected, chosen.processes)
        return
    if chosen.stopped:
        part = ["--trainer.limit_val_batches=0", f"--trainer.max_steps={chosen.stopped}"]
        run([*arguments, *part], output, chosen.processes, strategy=None)
        arguments.append("--resume")
    run(arguments, output, chosen.processes, strategy=None)

    one = runs.one_process(task, chosen.one)
    assert len(losses(one)) >= 3
    assert losses(output) == pytest.approx(losses(one), rel=1e-5)
    assert validation(output)["val_loss"] == pytest.approx(validation(one)["val_loss"], abs=1e-5)
    found, expected_weights = CASES[task].weights(output), CASES[task].weights(one)
    assert found.keys() == expected_weights.keys()
    for name, weights in expected_weights.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-3, atol=2e-5, msg=partial("{}: {}".format, name))
