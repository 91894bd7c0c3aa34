"""Imports run one way, down the rooms, as the contracts in pyproject.toml say (import-linter)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINTER = Path(sys.executable).with_name("lint-imports")
pytestmark = pytest.mark.skipif(not LINTER.exists(), reason="import-linter is not installed")


def lint(folder: Path) -> tuple[int, str]:
    done = subprocess.run([LINTER, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_imports_run_one_way() -> None:
    status, said = lint(ROOT)
    assert status == 0, said
    assert "0 broken" in said


@pytest.mark.parametrize(
    ("module", "line", "named"),
    [
        pytest.param("lavic/catalogue/items.py", "import lavic.model.text", "lavic.catalogue.items -> lavic.model.text",
                     id="up one room"),
        pytest.param("lavic/errors.py", "from lavic.demo import run", "lavic.errors -> lavic.demo.run", id="up all"),
        pytest.param("lavic/training/run_log.py", "import lavic.tasks.recommendation.task",
                     "lavic.training.run_log -> lavic.tasks.recommendation.task", id="a task from below it"),
        pytest.param("lavic/tasks/recommendation/task.py", "import lavic.tasks.distillation.task",
                     "lavic.tasks.recommendation.task -> lavic.tasks.distillation.task", id="a task from another"),
        pytest.param("crawl/store.py", "import lavic.batching.padding", "crawl.store -> lavic.batching.padding",
                     id="the crawler from a room of lavic's"),
        pytest.param("lavic/runs/run_files.py", "import torch", "lavic.runs.run_files -> torch", id="torch in runs"),
        pytest.param("lavic/helpers.py", "", "lavic.helpers", id="a module that stands in no room"),
    ],
)  # fmt: skip
def test_an_import_against_the_way_is_named(tmp_path: Path, module: str, line: str, named: str) -> None:
    for package in ("lavic", "crawl"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    status, said = lint(tmp_path)
    assert status == 1, said
    assert named in said
