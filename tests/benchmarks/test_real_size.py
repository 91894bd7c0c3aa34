"""The real-size benchmark runs, at toy size on a CPU, so that it is ready where a GPU is."""

import pytest
import torch

from benchmarks import real_size
from benchmarks.real_size import Profile


@pytest.mark.slow
@pytest.mark.parametrize("profile", [Profile("bf16", "none", 2), Profile("nf4", "full", 1)])
def test_a_profile_gives_a_row(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    if profile.weights == "nf4":
        pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(real_size, "profiles", lambda batches: [profile])
    (row,) = real_size.run(torch.device("cpu"), [], rounds=1, steps=1, toy=True)["rows"]
    assert row["samples/s"] > 0
    assert row["reference samples/s"] > 0
    assert (row["weights"], row["batch"]) == (profile.weights, profile.batch)
    assert row["planned GiB"] > 0
    assert row["MFU"] == row["peak GiB"] == "unknown"


def test_every_wanted_profile_is_measured() -> None:
    found = real_size.profiles([1, 2, 4, 8])
    assert {(p.weights, p.batch) for p in found} >= {(w, b) for w in ("bf16", "nf4") for b in (1, 2, 4, 8)}
    assert {(p.weights, p.checkpointing) for p in found} >= {("nf4", "full"), ("bf16", "selective")}
