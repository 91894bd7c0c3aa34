"""What `--resume` does when something is not as it was: the table says whether it goes on exactly or is refused.

Ten samples in steps of four: an epoch's last step is a short one, and the stopped run is in its second epoch.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lavic.demo.toy_llava import tiny_checkpoint
from tests.conftest import Described, write_described
from tests.tasks.cases import assert_refused
from tests.training.command_line import fit, losses

TOGETHER = ["--trainer.max_epochs=2", "--checkpoint.every_n_steps=1"]
BATCH = ["--data.init_args.batch_size=2", "--trainer.accumulate_grad_batches=2"]
STEPS, STOPPED = 6, 4


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped after `STOPPED` steps, and the same run not stopped."""

    tiny: Path
    described: Described
    output: Path
    whole: dict[int, float]

    def resume(self, output: Path, *options: str, processes: int = 1, status: int = 0) -> str:
        """Goes on in a copy; a later option counts."""
        shutil.copytree(self.output, output)
        given = (*TOGETHER, *BATCH, *options, "--resume")
        return fit(self.tiny, self.described, output, *given, processes=processes, status=status)


@pytest.fixture(scope="module")
def stopped(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    folder = tmp_path_factory.mktemp("stopped")
    described = write_described(folder / "data", train=10, valid=3)
    fit(tiny, described, folder / "whole", *TOGETHER, *BATCH)
    part = ("--trainer.limit_val_batches=0", f"--trainer.max_steps={STOPPED}")
    fit(tiny, described, folder / "part", *TOGETHER, *BATCH, *part)
    whole = losses(folder / "whole")
    assert list(whole) == list(range(1, STEPS + 1))
    return Stopped(tiny, described, folder / "part", whole)


@pytest.mark.parametrize(
    ("batch_size", "accumulate"),
    [
        pytest.param(2, 2, id="as it was"),
        pytest.param(1, 4, id="half the batch, twice the accumulation"),
        pytest.param(4, 1, id="twice the batch", marks=pytest.mark.slow),
    ],
)
def test_the_same_step_split_otherwise_goes_on_exactly(
    stopped: Stopped, tmp_path: Path, batch_size: int, accumulate: int
) -> None:
    split = (f"--data.init_args.batch_size={batch_size}", f"--trainer.accumulate_grad_batches={accumulate}")
    stopped.resume(tmp_path / "out", *split)
    found = losses(tmp_path / "out")
    assert found == pytest.approx(stopped.whole, rel=1e-5)
    assert sorted(found) == sorted(stopped.whole)  # no step is left out, and none is added


def test_another_learning_rate_is_taken_from_the_resumed_step_on(stopped: Stopped, tmp_path: Path) -> None:
    stopped.resume(tmp_path / "out", "--model.init_args.lr=0.05")
    found = losses(tmp_path / "out")
    assert sorted(found) == sorted(stopped.whole)
    until = STOPPED + 1  # the loss of the first resumed step is of weights that the old rate made
    assert [found[s] for s in range(1, until + 1)] == pytest.approx([stopped.whole[s] for s in range(1, until + 1)])
    assert found[STEPS] != pytest.approx(stopped.whole[STEPS], rel=1e-5)
    newest = max((tmp_path / "out" / "logs").glob("*/metrics.jsonl"), key=lambda path: path.parent.name)
    rates = [entry["lr"] for entry in map(json.loads, newest.read_text().splitlines()) if entry["event"] == "train"]
    assert rates == pytest.approx([0.05] * (STEPS - STOPPED))


def grown(folder: Path, described: Described) -> list[str]:
    """The same file with two more items."""
    more = write_described(folder / "grown", train=12, valid=3)
    path = more.folder / "item2meta_train.json"
    items = json.loads((described.folder / "item2meta_train.json").read_text())
    path.write_text(json.dumps(items | dict(list(json.loads(path.read_text()).items())[10:])))
    return more.flags()


def reworded(folder: Path, described: Described) -> list[str]:
    """A file of as many items, of which one has another description."""
    path = folder / "reworded.json"
    items = json.loads((described.folder / "item2meta_train.json").read_text())
    meta = next(iter(items.values()))
    texts = meta["image_descriptions_llava_cleaned"]
    meta["image_descriptions_llava_cleaned"] = dict.fromkeys(texts, "Quite another thing.")
    path.write_text(json.dumps(items))
    return [f"--data.init_args.train_data={path}"]


def reordered(folder: Path, described: Described) -> list[str]:
    """The same items in another order, so that a row is another sample."""
    path = folder / "reordered.json"
    items = json.loads((described.folder / "item2meta_train.json").read_text())
    path.write_text(json.dumps(dict(reversed(items.items()))))
    return [f"--data.init_args.train_data={path}"]


Change = list[str] | Callable[[Path, Described], list[str]]
LORA = "--model.init_args.trainable.lora."
REFUSED: dict[str, tuple[Change, str]] = {  # what is not as it was -> what the sentence names
    "half the samples a step": (["--data.init_args.batch_size=1"], "batch_size"),
    "twice the samples a step": (["--trainer.accumulate_grad_batches=4"], "accumulate_grad_batches"),
    "another seed": (["--seed_everything=7"], "seed"),
    "a grown catalogue": (grown, "training data"),
    "another train file": (reworded, "training data"),
    "another order of items": (reordered, "training data"),
    "fewer samples": (["--data.init_args.max_samples=8"], "training data"),
    "a part less": (["--model.init_args.trainable.projector=frozen"], "trainable parameters"),
    "a part more": (["--model.init_args.trainable.language=lora"], "trainable parameters"),
    "fewer targets": ([f"{LORA}targets=[q_proj,v_proj,linear_1]"], "trainable parameters"),
    "another rank": ([f"{LORA}r=4"], "LoRA"),
    "another alpha": ([f"{LORA}alpha=16"], "LoRA"),
    "another optimizer": (["--model.init_args.optimizer=torch.optim.SGD"], "optimizer AdamW"),
    "a schedule": (["--model.init_args.scheduler=lavic.training.schedules.WarmupCosine"], "learning-rate schedule"),
}
QUICK = {"half the samples a step", "a grown catalogue", "a part less"}


@pytest.mark.parametrize(
    ("change", "named"),
    [pytest.param(*row, id=name, marks=[] if name in QUICK else [pytest.mark.slow]) for name, row in REFUSED.items()],
)
def test_what_a_position_depends_on_must_be_as_it_was(
    stopped: Stopped, tmp_path: Path, change: Change, named: str
) -> None:
    options = change if isinstance(change, list) else change(tmp_path, stopped.described)
    said = stopped.resume(tmp_path / "out", *options, status=2)
    assert_refused(said, named)
    assert_nothing_changed(stopped, tmp_path / "out")


@pytest.mark.slow
def test_another_number_of_processes_is_refused(stopped: Stopped, tmp_path: Path) -> None:
    said = stopped.resume(tmp_path / "out", "--data.init_args.batch_size=1", processes=2, status=2)
    assert_refused(said, "processes", processes=2)
    assert_nothing_changed(stopped, tmp_path / "out")


@pytest.mark.parametrize(
    "same_path", [pytest.param(False, id="at another path"), pytest.param(True, id="at the same path")]
)
@pytest.mark.slow
def test_another_base_checkpoint_is_refused(tmp_path: Path, tiny: Path, same_path: bool) -> None:
    described = write_described(tmp_path / "data", train=6, valid=3)
    base, output = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny, base)
    part = ("--trainer.limit_val_batches=0", "--trainer.max_steps=2")
    fit(base, described, output, *part)
    other = base if same_path else tmp_path / "other"
    tiny_checkpoint(other, seed=5)
    said = fit(other, described, output, "--resume", status=2)
    assert_refused(said, "base model")


def assert_nothing_changed(stopped: Stopped, output: Path) -> None:
    """No step was trained, and what there was to resume from is still there."""
    assert losses(output) == losses(stopped.output)
    before, after = (torch.load(o / "last.ckpt", weights_only=True) for o in (stopped.output, output))
    assert before["global_step"] == after["global_step"] == STOPPED
    assert all(torch.equal(before["state_dict"][name], weights) for name, weights in after["state_dict"].items())
