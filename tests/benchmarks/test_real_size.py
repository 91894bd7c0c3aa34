"""The real-size benchmark runs, at toy size on a CPU and with few packages, so that it is ready where a GPU is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import real_size
from benchmarks.real_size_row import _parts
from benchmarks.real_size_ways import Profile, ways
from benchmarks.workload import build, random_llava, toy_config
from lavic.cost.gpus import named_gpu

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
LACKING = Path(__file__).with_name("few_packages.py")


@pytest.mark.parametrize(
    "profile",
    [
        Profile("stage 1", "bf16", 2),
        pytest.param(Profile("stage 1", "nf4", 1, "full"), marks=pytest.mark.slow),
        Profile("stage 2", "bf16", 2, "full", tokens=120),
        Profile("embed", "bf16", 2),
        Profile("instruct", "bf16", 2, "full", tokens=240),
        Profile("describe", "bf16", 2, tokens=3),
    ],
    ids=lambda profile: f"{profile.task} {profile.weights}",
)
def test_a_profile_gives_a_row(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    if profile.weights == "nf4":
        pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(real_size, "profiles", lambda batches: [profile])
    (row,) = real_size.run(CPU, [], rounds=1, steps=1, toy=True)["rows"]
    assert row["samples/s"] > 0
    assert row["plain samples/s"] > 0
    assert (row["task"], row["weights"], row["batch"]) == (profile.task, profile.weights, profile.batch)
    assert row["MFU"] == row["peak GiB"] == "unknown"
    assert len(row["top ten"]) == 10
    assert [float(line.split("%")[0]) for line in row["top ten"]] == sorted(
        (float(line.split("%")[0]) for line in row["top ten"]), reverse=True
    )
    if profile.task == "describe":
        assert row["prefill s"] > 0


def test_what_is_not_prefill_is_decoding() -> None:
    row, gpu = Profile("describe", "bf16", 2, tokens=3), named_gpu("H100 SXM")
    parts = _parts(toy_config(), row, prefill=0.25, whole=1.0, gpu=gpu)
    assert (parts["prefill s"], parts["decode s"]) == (0.25, 0.75)
    slower = _parts(toy_config(), row, prefill=0.5, whole=1.0, gpu=gpu)
    assert (slower["prefill s"], slower["decode s"]) == (0.5, 0.5)
    assert parts["MFU"] >= slower["MFU"]
    assert _parts(toy_config(), row, prefill=1.1, whole=1.0, gpu=None)["decode s"] == 0  # each is timed by itself


@pytest.mark.parametrize("task", ["stage 1", "stage 2", "instruct"])
def test_both_ways_compute_one_loss(task: Any) -> None:
    row = Profile(task, "bf16", 1, tokens=240)
    llava = build(toy_config(), 0.0, CPU, torch.bfloat16, row.trainable).float().eval()
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        losses = [way().float() for way in ways(llava, row, toy_config())]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=0)


def test_both_ways_describe_alike() -> None:
    config = toy_config()
    llava = random_llava(config, CPU, torch.float32).eval()
    plain, ours, first = ways(llava, Profile("describe", "bf16", 1, tokens=5), config)
    with torch.inference_mode():
        made = ours()
        assert plain().tolist() == made.tolist()
        assert first().tolist() == made[:, :1].tolist()
    assert made.shape == (1, 5)


def test_rows_come_by_worth_and_each_once() -> None:
    found = real_size.profiles([1, 2, 4, 8])
    assert [(p.task, p.weights, p.batch) for p in found[:3]] == [
        ("stage 1", "bf16", 1), ("stage 1", "bf16", 8), ("stage 1", "nf4", 1),
    ]  # fmt: skip
    assert {(p.weights, p.batch) for p in found} >= {(w, b) for w in ("bf16", "nf4") for b in (1, 2, 4, 8)}
    assert {(p.task, p.tokens) for p in found} >= {("stage 2", 500), ("stage 2", 1000), ("instruct", 2048)}
    assert {p.task for p in found} == {"stage 1", "stage 2", "instruct", "embed", "describe"}
    assert len(set(found)) == len(found)


def test_a_budget_ends_it_and_a_later_call_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Profile] = []

    def measured(profile: Profile, *_: Any) -> dict[str, Any]:
        begun.append(profile)
        if profile.batch == 8:
            raise torch.OutOfMemoryError
        return {**vars(profile), "samples/s": 1.0}

    monkeypatch.setattr(real_size, "measure", measured)
    kept: list[dict[str, Any]] = []
    first = real_size.run(CPU, [1, 8], 1, 1, True, keep=kept.append, seconds=0)
    assert len(first["rows"]) == len(kept) == 1
    real_size.run(CPU, [1, 8], 1, 1, True, json.loads(json.dumps(first["rows"])), kept.append)
    assert begun == real_size.profiles([1, 8])  # each once, over both calls
    assert [len(result["rows"]) for result in kept] == list(range(1, len(begun) + 1))
    assert (kept[0]["to do"], kept[-1]["to do"]) == (len(begun) - 1, 0)
    assert "out of memory" in {row["samples/s"] for row in kept[-1]["rows"]}


def test_it_needs_what_a_gpu_machine_has(tmp_path: Path) -> None:
    arguments = ["real-size", "--toy", "--rounds=1", "--steps=1", "--seconds=0", f"--results={tmp_path}"]

    def begin() -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, str(LACKING), "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True,
            check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads((tmp_path / "real-size-toy.json").read_text())["rows"]
        return rows

    assert [(row["task"], row["batch"]) for row in begin()] == [("stage 1", 1)]
    assert [(row["task"], row["batch"]) for row in begin()] == [("stage 1", 1), ("stage 1", 8)]
    assert "| stage 1 | bf16 | 8 |" in (tmp_path / "real-size-toy.md").read_text()
    lacking = subprocess.run([sys.executable, str(LACKING), "gradio"], capture_output=True, text=True, check=False)
    assert "No module named gradio" in lacking.stderr
