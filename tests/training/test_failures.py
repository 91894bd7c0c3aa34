"""Full disks, lost images, killed workers, bad gradients: one sentence, and all that was saved is whole."""

import errno
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from lavic.runs.run_files import find_run
from lavic.training.failures import end_processes, explain
from tests.conftest import Described, write_described
from tests.training.command_line import ADAPTER, Started, adapter, fit, kill_workers, options_of, start


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk of out is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "The disk of out is full"),
        (OSError(errno.EROFS, "Read-only file system", "out/last.ckpt"), r"out/last\.ckpt cannot be written"),
        (RuntimeError("DataLoader worker (pid 47) is killed by signal: Killed. "), "worker 47 was killed by Killed"),
        (RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly"), "worker 1, 2 was killed, often"),
        (torch.OutOfMemoryError("CUDA out of memory"), "The GPU's memory is full"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Data loader workers were killed"),
        (RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]"), "Another process"),
        (RuntimeError("Caught\nTraceback:\nlavic.errors.UserError: The image x is gone."), "^The image x"),
    ],
)
def test_known_causes_are_one_sentence(error: Exception, said: str) -> None:
    sentence = explain(error, Path("out"))
    assert sentence is not None
    assert "\n" not in sentence
    assert re.search(said, sentence)


def test_an_unknown_cause_keeps_its_traceback() -> None:
    assert explain(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Path("out")) is None


def test_processes_that_do_not_end_are_killed() -> None:
    quick, hanging = subprocess.Popen(["true"]), subprocess.Popen(["sleep", "60"])
    end_processes([quick, hanging], seconds=0.3)
    assert quick.wait(5) == 0
    assert hanging.wait(5) == -signal.SIGKILL


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "lavic-test", disk], check=False)
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_leaves_checkpoint_and_adapter_whole(
    small_disk: Path, tiny: Path, described: Described, tmp_path: Path
) -> None:
    output, console = small_disk / "out", tmp_path / "console.log"
    long = ("--trainer.max_epochs=200", "--checkpoint.every_n_steps=1", f"--logs_dir={tmp_path / 'logs'}")
    process = start([*options_of(tiny, described, output), *long], console, "training_000000")
    deadline = time.monotonic() + 120
    while not (output / ADAPTER).exists():
        assert process.is_alive(), console.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    process.join(120)
    said = console.read_text()
    assert process.exitcode == 2, said
    assert f"error: The disk of {output} is full" in said
    assert "Traceback" not in said
    assert find_run(tmp_path / "logs").status() == "failed"
    torch.load(output / "last.ckpt", weights_only=True)
    assert adapter(output)


@pytest.mark.slow
def test_a_read_only_output_is_named_before_anything_is_loaded(
    small_disk: Path, tiny: Path, described: Described, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    output, logs = small_disk / "out", f"--logs_dir={tmp_path / 'logs'}"
    said = fit(tiny, described, tmp_path / "console", logs, f"--trainer.default_root_dir={output}", status=2)
    assert f"error: The output directory {output} cannot be written" in said.strip().splitlines()[-1]


@pytest.mark.slow
def test_exploding_gradients_end_the_run_with_the_samples_names(
    tiny: Path, described: Described, tmp_path: Path
) -> None:
    options = ("--model.init_args.lr=1e30", "--non_finite_steps.stop_after=3")
    said = fit(tiny, described, tmp_path / "out", *options, status=2)
    assert "error: The gradients of 3 steps in a row were not finite" in said
    assert "_0.jpg" in said.strip().splitlines()[-1]
    run = find_run(tmp_path / "out" / "logs")
    assert len(run.of("skip")) == 3
    assert run.status() == "failed"


def running(tiny: Path, described: Described, output: Path, *options: str) -> Started:
    """A long run that has trained some steps and saved."""
    long = ("--trainer.max_epochs=200", "--checkpoint.every_n_steps=1", *options)
    process = start([*options_of(tiny, described, output), *long], output.with_suffix(".log"), "training_000000")
    deadline = time.monotonic() + 120
    while not (output / "last.ckpt").exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


def ends(process: Started, output: Path) -> str:
    """Waits for the end with exit status 2 and returns the sentence; the checkpoint is whole."""
    process.join(120)
    said = output.with_suffix(".log").read_text()
    assert process.exitcode == 2, said
    torch.load(output / "last.ckpt", weights_only=True)
    return said.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_killed_worker_ends_the_run(tiny: Path, described: Described, tmp_path: Path) -> None:
    process = running(tiny, described, tmp_path / "out", "--data.init_args.num_workers=1")
    kill_workers(process)
    assert ends(process, tmp_path / "out").startswith("error: Data loader worker")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_vanished_image_directory_ends_the_run(tiny: Path, tmp_path: Path, workers: int) -> None:
    described = write_described(tmp_path / "data", 12, 4)
    process = running(tiny, described, tmp_path / "out", f"--data.init_args.num_workers={workers}")
    (tmp_path / "data" / "train_images").rename(tmp_path / "data" / "gone")
    said = ends(process, tmp_path / "out")
    assert "train_images" in said
    assert "--resume" in said
