"""The benchmark beside transformers' own Trainer runs, on a toy: both programs take the same steps."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import OURS, RANDOM, SAME, Peers, rows_of


@pytest.mark.slow
def test_both_train_alike_up_to_a_step_of_text_alone(tmp_path: Path) -> None:
    """After it they do not: ours moves the projector by its momentum, and theirs, without a gradient, leaves it."""
    peers = Peers(tmp_path, "lora", records=32, batch=2, toy=True)
    order = json.loads(peers.in_our_order(14).read_text())
    assert ["image" in record for record in order[:28]] == [True] * 26 + [False] * 2
    assert peers.check_alike(steps=14)["Trainer"] < 1e-5


@pytest.mark.slow
def test_both_train_alike_with_lora_on_the_tower_of_a_llava_that_cuts_views(tmp_path: Path) -> None:
    peers = Peers(tmp_path, "vision", records=16, batch=2, toy=True)
    assert peers.check_alike(steps=3)["Trainer"] < 1e-5


def test_ratios_are_of_neighbours_in_time() -> None:
    def turn(seconds: float, cpu: float) -> dict[str, Any]:
        return {"seconds": seconds, "CPU seconds": cpu, "peak MB": 100.0, "losses": [cpu, 2.0]}

    told = {
        SAME: [turn(4.0, 3.0), turn(9.0, 3.0), turn(6.0, 6.0)],
        OURS: [turn(2.0, 2.0), turn(6.0, 2.0), turn(3.0, 2.0)],
        RANDOM: [turn(8.0, 4.0), turn(6.0, 4.0), turn(9.0, 4.0)],
    }
    same, random = rows_of("lora", told, samples=12, alike={"Trainer": 0.0})
    assert (same["ratio"], same["lowest"], same["highest"]) == (2.0, 1.5, 2.0)
    assert (random["ratio"], random["lowest"], random["highest"]) == (3.0, 1.0, 4.0)
    assert (same["ratio of CPU seconds"], random["ratio of CPU seconds"]) == (2.0, 2.0)
    assert same["mean loss, theirs and ours"] == "3.000 2.000"
    assert (same["theirs samples/s"], same["ours samples/s"]) == (2.0, 4.0)
