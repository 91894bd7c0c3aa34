"""Which demo is run."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lavic.demo import run
from lavic.errors import UserError


@pytest.mark.parametrize("task", ["instruct", "vqa"])
def test_a_task_is_a_module_of_its_own(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    module = ModuleType(f"lavic.demo.{task}")
    module.demonstrate = lambda *arguments: given.extend(arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(run, "crawl_sample", lambda folder: pytest.fail("this is stage 1's"))
    run.main(["--task", task, "--trainer.max_epochs=1", "--demo_dir=elsewhere", "--seed", "3"])
    assert given[:4] == [Path("elsewhere"), 3, ["--trainer.max_epochs=1"], run._run]


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(UserError, match="task is vqaa; it must be one of lavic, instruct, vqa"):
        run.main(["--task", "vqaa"])
    with pytest.raises(UserError, match="--task vqa has no --stage 2"):
        run.main(["--task=vqa", "--stage=2"])
