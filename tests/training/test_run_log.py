"""What a run writes is what happened."""

import json
import logging
import os
from pathlib import Path

import pytest

from lavic.runs.run_files import find_run
from lavic.training.checkpoint import TrainableCheckpoint
from lavic.training.resuming import LAST
from lavic.training.run_log import RunLog, steps_log
from lavic.training.text_log import start_text_log
from tests.training.small_run import SmallTask, trainer


def test_events_tell_losses_validations_checkpoints_and_the_end(tmp_path: Path) -> None:
    task = SmallTask()
    callbacks = [RunLog(tmp_path / "logs", "first"), TrainableCheckpoint(every_n_steps=2)]
    trainer(tmp_path, callbacks, log_every_n_steps=3, max_epochs=1).fit(task)
    run = find_run(tmp_path / "logs")
    assert [e["step"] for e in run.of("train")] == [3, 6]
    micro_batches = [loss for _, loss in task.losses]
    assert run.of("train")[0]["train_loss"] == pytest.approx(sum(micro_batches[:6]) / 6)
    assert run.of("train")[1]["train_loss"] == pytest.approx(sum(micro_batches[6:]) / 6)
    assert run.last("train")["epoch"] == 1.0
    assert run.last("validation")["val_loss"] == pytest.approx(task.val_losses[-1][1])
    assert {e["step"] for e in run.of("checkpoint")} == {2, 4, 6}
    assert run.status() == "finished"
    assert run.about["total_steps"] == 6
    assert run.about["pid"] == os.getpid()
    assert run.about["trainable_parameters"] == 36


def test_a_resumed_run_names_the_one_that_it_continues(tmp_path: Path) -> None:
    for run_id, epochs in (("first", 1), ("second", 2)):
        callbacks = [RunLog(tmp_path / "logs", run_id), TrainableCheckpoint()]
        last = tmp_path / LAST if run_id == "second" else None
        trainer(tmp_path, callbacks, max_epochs=epochs).fit(SmallTask(), ckpt_path=last)
    run = find_run(tmp_path / "logs", "second")
    assert run.about["continues"] == {"run_id": "first", "step": 6}
    assert [e["step"] for e in run.of("train")] == list(range(1, 13))


def test_warnings_become_events_and_a_failure_is_the_end(tmp_path: Path) -> None:
    def fail(stage: str, task: SmallTask, batch_idx: int, loss: object) -> object:
        logging.getLogger("anything").warning("something odd")
        raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        trainer(tmp_path, [RunLog(tmp_path / "logs", "x")], num_sanity_val_steps=0).fit(SmallTask(fail=fail))
    run = find_run(tmp_path / "logs")
    assert "something odd" in [e["message"] for e in run.of("warning")]
    assert run.last("end")["message"] == "it broke"
    assert run.status() == "failed"


def test_every_line_of_metrics_is_whole_json(tmp_path: Path) -> None:
    trainer(tmp_path, [RunLog(tmp_path / "logs", "x")], max_epochs=1).fit(SmallTask())
    for line in (tmp_path / "logs" / "x" / "metrics.jsonl").read_text().splitlines():
        assert {"time", "event"} <= json.loads(line).keys()


def test_the_text_log_has_steps_and_a_terminal_with_a_bar_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        start_text_log(tmp_path / "run.log", terminal=True)
        steps_log.info("step 10/100")
        logging.getLogger("lavic").info("Best LoRA adapter saved.")
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers = before
    assert "step 10/100" in (tmp_path / "run.log").read_text()
    said = capsys.readouterr().err
    assert "Best LoRA adapter saved." in said
    assert "step 10/100" not in said
