"""`python -m lavic fit` as a process of its own, on the tiny model, for kills and several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from lavic.runs import find_run
from tests.conftest import Described

ROOT = Path(__file__).parents[2]
ADAPTER = "vision_lora_adapter_best"


def fit_command(tiny: Path, described: Described, output: Path, *options: str) -> list[str]:
    """One epoch on the CPU without dropout, every step logged; logs go to `output/logs`."""
    return [
        sys.executable, "-m", "lavic", "fit", "--config", "configs/distill.yaml", *described.flags(),
        f"--model.init_args.base.name={tiny}", "--model.init_args.lr=0.002", "--model.init_args.max_new_tokens=4",
        "--model.init_args.trainable.lora.dropout=0", "--data.init_args.num_workers=0", "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1", f"--trainer.default_root_dir={output}", f"--logs_dir={output / 'logs'}",
        *options,
    ]  # fmt: skip


def environment(output: Path) -> dict[str, str]:
    """One thread a process, so that sums are taken in one order; its own cache."""
    inherited = {name: value for name, value in os.environ.items() if name != "LAVIC_RUN_ID"}
    return {**inherited, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(output.parent / "cache")}


def fit(tiny: Path, described: Described, output: Path, *options: str, status: int = 0) -> str:
    """Runs it to its end and returns what it printed."""
    done = subprocess.run(
        fit_command(tiny, described, output, *options),
        cwd=ROOT, env=environment(output), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    return done.stdout


def adapter(output: Path) -> dict[str, Tensor]:
    """The best adapter's weights."""
    return load_file(output / ADAPTER / "adapter_model.safetensors")


def validation(output: Path) -> dict[str, Any]:
    """The newest validation's metrics."""
    return find_run(output / "logs").last("validation")


def losses(output: Path) -> dict[int, float]:
    """train_loss of every step, those of resumed runs in place of what they repeat."""
    found: dict[int, float] = {}
    for path in sorted((output / "logs").glob("*/metrics.jsonl"), key=lambda path: path.parent.name):
        events = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        found |= {e["step"]: e["train_loss"] for e in events if e["event"] == "train"}
    return found
