"""Every task's YAML file with every overlay, by the command line: two steps on this CPU, or one sentence."""

import socket
from pathlib import Path

import pytest

from tests.tasks.cases import CASES, assert_refused, fit_arguments
from tests.training.command_line import ROOT, losses, start

TRAINED = {"8gb", "qlora", "local_lite", "debug_fast", "debug_overfit", "debug_profile"}
REFUSED = {  # overlay -> what the sentence names, where there is no GPU
    "t4_qlora": "float16, which a CPU does not",
    "cloud": "gpu",
}
ELSEWHERE = {"fsdp2", "zero2", "wandb"}  # tests/tasks/test_strategies.py and tests/training/test_validation_samples.py
TUNED = {"instruction", "vqa", "recommendation"}
FITTING = {  # overlay -> the tasks whose options it sets; all where it is not named
    "local_lite": TUNED,
    "t4_qlora": {*TUNED, "distillation"},
    "cloud": {*TUNED, "distillation"},
}


def test_every_overlay_is_in_a_table() -> None:
    assert {path.stem for path in (ROOT / "configs/with").glob("*.yaml")} == TRAINED | REFUSED.keys() | ELSEWHERE


def fit(tiny: Path, folder: Path, task: str, overlay: str) -> tuple[str, int]:
    """What a fit of two steps says, and its exit status."""
    options = CASES[task].prepare(tiny, folder)
    [config, *rest] = fit_arguments(options, folder / "out")[1:]
    lasting = [
        "--trainer.max_steps=2",
        "--trainer.max_epochs=2",
        "--data.init_args.batch_size=2",
        "--trainer.accumulate_grad_batches=1",
    ]
    if overlay in ("t4_qlora", "cloud"):
        rest.remove("--trainer.accelerator=cpu")
    if overlay == "cloud":
        lasting.append("--trainer.devices=1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    console = folder / "said.log"
    arguments = ["fit", config, f"--config={ROOT}/configs/with/{overlay}.yaml", *rest, *lasting]
    process = start(arguments, console, "training_000000", port=port)
    process.join(300)
    assert process.exitcode is not None
    return console.read_text(), process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("task", CASES)
@pytest.mark.parametrize("overlay", sorted(TRAINED | REFUSED.keys()))
def test_two_steps_or_one_sentence(tiny: Path, tmp_path: Path, task: str, overlay: str) -> None:
    said, status = fit(tiny, tmp_path, task, overlay)
    if task not in FITTING.get(overlay, {task}):
        assert status == 2, said
        assert_refused(said, "")
    elif overlay in REFUSED:
        assert status == 2, said
        assert_refused(said, REFUSED[overlay])
    else:
        assert status == 0, said
        assert sorted(losses(tmp_path / "out")) == [1, 2]
        assert ("quantization is switched off" in said) == (overlay == "local_lite")
