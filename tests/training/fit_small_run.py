"""`python -m tests.training.fit_small_run OUTPUT [name=value ...]`: the small run as a process, for signals and kills.

Each micro-batch's (step, loss) is appended to `OUTPUT/losses.jsonl`, so that a killed process leaves them too.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from lavic.training.checkpoint import TrainableCheckpoint, checkpoint_to_resume
from lavic.training.failures import EndTogether, explained
from lavic.training.run_log import RunLog
from lavic.training.step_seeds import StepSeeds
from tests.training.small_run import SmallTask, trainer


def fit(output: Path, seconds: float, validation_seconds: float, raising_rank: int, **options: Any) -> None:
    """Fits with a pause in every micro-batch."""

    def pause(stage: str, task: SmallTask, batch_idx: int, loss: Any) -> Any:
        if raising_rank == task.global_rank and task.global_step == 2:
            raise ValueError(f"process {task.global_rank} broke")
        time.sleep(validation_seconds if stage == "validation" else seconds)
        if stage == "train" and task.global_rank == 0:
            with (output / "losses.jsonl").open("a") as file:
                file.write(json.dumps([task.global_step, loss.item()]) + "\n")
        return loss

    output.mkdir(parents=True, exist_ok=True)
    last = checkpoint_to_resume(output, resume=True)
    callbacks = [
        RunLog(output / "logs"), StepSeeds(3), EndTogether(), TrainableCheckpoint(every_n_steps=2),
    ]  # fmt: skip
    with explained(output):
        trainer(output, callbacks, **options).fit(SmallTask(fail=pause), ckpt_path=last, weights_only=True)


def main(arguments: list[str]) -> None:
    """The command line."""
    given = dict(argument.split("=") for argument in arguments[1:])
    numbers = {"seconds": 0.0, "validation_seconds": 0.0, "raising_rank": -1}
    numbers |= {name: float(given.pop(name)) for name in list(numbers) if name in given}
    options = {name: json.loads(value) for name, value in given.items()}
    fit(Path(arguments[0]), **numbers, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1:])
