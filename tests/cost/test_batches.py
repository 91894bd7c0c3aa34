"""A ragged batch's FLOP against torch's own counter, which runs each row alone and so without padding."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lavic.cost.batches import batch_flop, samples_of
from lavic.model.parts import Lora, TrainableParts
from lavic.model.prefix_reuse import FrozenPrefix, split_batch, target_loss
from lavic.model.speedups import PLAIN, Speedups, speed_up
from tests.model.toy import PLACEHOLDERS, PREFIX, images, ragged_batch, toy_llava, visual_tokens

COUNTABLE = replace(Speedups(), fused_lora=False)  # it multiplies in place, which torch's counter does not see


@pytest.mark.parametrize("speedups", [COUNTABLE, PLAIN], ids=["all", "none"])
def test_a_ragged_batch_costs_what_its_rows_do(speedups: Speedups) -> None:
    llava = toy_llava(attention="eager").float()
    speed_up(llava, speedups)
    batch: Any = ragged_batch()
    prefix = FrozenPrefix(PREFIX)
    prefix.keys_values(llava)
    with FlopCounterMode(display=False) as counter:
        for number, mask in enumerate(batch["attention_mask"]):
            row = {name: rows[None, number, mask.bool()] for name, rows in batch.items()}
            split = split_batch(**row, placeholder_ids=PLACEHOLDERS, prefix_ids=prefix.ids, speedups=speedups)
            visual = visual_tokens(llava, images(1, torch.float32))
            loss = target_loss(
                llava, **row, visual_tokens=visual, placeholder_ids=PLACEHOLDERS, prefix=prefix, split=split
            )
            torch.autograd.backward(loss)
    kept = len(PREFIX) if speedups.reuse_prefix else 0
    samples = samples_of(**batch, placeholder_ids=PLACEHOLDERS, prefix=kept)
    counted = batch_flop(llava.config, TrainableParts(lora=Lora(r=4)), samples, speedups)
    assert counted == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_rows_are_told_by_their_own_lengths() -> None:
    batch: Any = ragged_batch((4, 1, 7), (9, 12, 5))
    samples = samples_of(**batch, placeholder_ids=PLACEHOLDERS, prefix=8)
    found = [(s.views, s.tokens, s.prefix, s.before_placeholder, s.targets) for s in samples]
    assert found == [(5, 28, 8, 12, 9), (5, 28, 8, 9, 12), (5, 27, 8, 15, 5)]
    assert {s.views for s in samples_of(**batch)} == {0}
