"""The loading benchmark runs, on a catalogue of a few items."""

from pathlib import Path

import pytest

from benchmarks.data import measured, write_catalogue
from lavic.demo.toy_llava import tiny_checkpoint


@pytest.mark.slow
def test_figures_of_a_small_catalogue(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "toy_model")
    write_catalogue(tmp_path / "data", 6)
    found = measured(tmp_path / "data", tmp_path / "toy_model", workers=1, batches=3)
    assert 0 < found["ready"] < found["first"]
    assert found["rate"] > 0
    assert found["worker"] > 0
