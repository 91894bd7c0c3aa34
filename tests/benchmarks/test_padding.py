"""The share of padding, by hand, and on the published conversations where they are."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.padding import conversation_lengths, padding, shares
from tests.real_tokenizers import needs_shared, tokenizer
from tests.tasks.distillation.test_real_data import REAL


def test_padding_is_what_belongs_to_no_sample() -> None:
    lengths = np.array([2, 4, 6, 3])
    assert padding(lengths, [(0, 1), (2,), (3,)]) == pytest.approx(2 / (8 + 6 + 3))
    assert padding(lengths, [(0,), (1,), (2,), (3,)]) == 0


@pytest.mark.slow
@needs_shared
@pytest.mark.skipif(not (REAL / "all_beauty").is_dir(), reason=f"the published conversations are not at {REAL}")
def test_the_plan_keeps_it_under_a_tenth_on_published_conversations(tmp_path: Path) -> None:
    tokenizer("mistral_v1_legacy_true").save_pretrained(tmp_path)
    (tmp_path / "data" / "all_beauty").mkdir(parents=True)
    source = REAL / "all_beauty" / "valid.jsonl"
    (tmp_path / "data" / "all_beauty" / "valid.jsonl").write_bytes(source.read_bytes())
    lengths, targets, letters = conversation_lengths(tmp_path / "data", REAL / "item2meta_valid.jsonl", tmp_path, 2048)
    for batch, accumulate in ((2, 4), (4, 2), (8, 1)):
        share = shares(lengths, targets, letters, batch, accumulate)
        assert share["plan"] < 0.1 < share["shuffle"]
