"""A ragged batch's FLOP against torch's own counter, which runs each row alone and so without padding."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaNextForConditionalGeneration

from lavic.cost.batches import batch_flop, multimodal_batch_flop, samples_of, start_of_all
from lavic.model.multimodal_batch import MultimodalBatch
from lavic.model.parts import Lora, Mode, TrainableParts, place_adapters, unwrap
from lavic.model.prefix_reuse import FrozenPrefix, segment_batch, shared_prefix_loss
from lavic.model.speedups import PLAIN, Speedups, speed_up
from tests.model.toy import PLACEHOLDERS, PREFIX, VOCABULARY, images, ragged_batch, toy_llava, visual_tokens

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
            segments = segment_batch(**row, placeholder_ids=PLACEHOLDERS, prefix_ids=prefix.ids, speedups=speedups)
            visual = visual_tokens(llava, images(1, torch.float32))
            loss = shared_prefix_loss(
                llava, **row, visual_tokens=visual, placeholder_ids=PLACEHOLDERS, prefix=prefix, segments=segments
            )
            torch.autograd.backward(loss)
    kept = len(PREFIX) if speedups.reuse_prefix else 0
    samples = samples_of(**batch, placeholder_ids=PLACEHOLDERS, prefix=kept)
    counted = batch_flop(llava.config, TrainableParts(lora=Lora(r=4)), samples, speedups)
    assert counted == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_a_start_that_rows_share_is_counted_once() -> None:
    """Stage 2's step; of the start's last layer nothing but keys and values is differentiated, which is counted."""
    trainable = TrainableParts("frozen", "frozen", "lora", lora=Lora(r=4, dropout=0.0))
    speedups = replace(PLAIN, target_logits_only=True, reuse_prefix=True)
    torch.manual_seed(1)
    base = LlavaNextForConditionalGeneration(toy_llava(attention="eager").config)
    llava: Any = unwrap(place_adapters(base.requires_grad_(False), trainable, "")).train().float()
    batch: Any = ragged_batch((5, 5, 5), (9, 9, 9))  # no padding, which is computed and not counted
    segments = segment_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=PREFIX, speedups=speedups)
    visual = torch.randn(15, llava.config.text_config.hidden_size)
    with FlopCounterMode(display=False) as counter:
        loss = shared_prefix_loss(llava, **batch, visual_tokens=visual, placeholder_ids=PLACEHOLDERS, segments=segments)
        torch.autograd.backward(loss)
    samples = [*samples_of(**batch, prefix=len(PREFIX)), start_of_all(len(PREFIX))]
    counted = batch_flop(llava.config, trainable, samples, speedups)
    whole = batch_flop(llava.config, trainable, samples_of(**batch), replace(speedups, reuse_prefix=False))
    assert counter.get_total_flops() <= counted < whole
    start = batch_flop(llava.config, trainable, [start_of_all(len(PREFIX))], speedups)
    assert counted - counter.get_total_flops() < start / llava.config.text_config.num_hidden_layers


def test_rows_are_told_by_their_own_lengths() -> None:
    batch: Any = ragged_batch((4, 1, 7), (9, 12, 5))
    samples = samples_of(**batch, placeholder_ids=PLACEHOLDERS, prefix=8)
    found = [(s.views, s.tokens, s.prefix, s.before_placeholder, s.targets) for s in samples]
    assert found == [(5, 28, 8, 12, 9), (5, 28, 8, 9, 12), (5, 27, 8, 15, 5)]
    assert {s.views for s in samples_of(**batch)} == {0}


IMAGE, PATCHES = 119, 4  # the toy's image token, and how many patches a view has
PARTS: list[tuple[Mode, Mode, Mode]] = [
    ("frozen", "full", "lora"),
    ("frozen", "frozen", "lora"),
    ("frozen", "full", "frozen"),
    ("frozen", "full", "full"),
    ("full", "full", "full"),
    ("lora", "lora", "lora"),
]


@pytest.mark.parametrize("parts", PARTS, ids="-".join)
def test_a_batch_of_patch_tokens_costs_what_its_rows_do(parts: tuple[Mode, Mode, Mode]) -> None:
    trainable = TrainableParts(*parts, lora=Lora(r=4, dropout=0.0))
    torch.manual_seed(1)
    base = LlavaNextForConditionalGeneration(toy_llava(attention="eager").config)
    llava: Any = unwrap(place_adapters(base.requires_grad_(False), trainable, "")).train()
    llava.float()
    speedups = replace(PLAIN, target_logits_only=True)
    rows = [(2, 9, 5), (1, 4, 11)]  # views, tokens of text before the answer, tokens of the answer
    width = max(views * PATCHES + asked + said for views, asked, said in rows)
    nothing = torch.zeros(len(rows), width, dtype=torch.long)
    batch: dict[str, Any] = {"input_ids": nothing, "attention_mask": nothing.clone(), "labels": nothing - 100}
    for row, (views, asked, said) in enumerate(rows):
        text = torch.randint(12, min(IMAGE, VOCABULARY), (asked + said,))
        ids = torch.cat([text[:1], torch.full((views * PATCHES,), IMAGE), text[1:]])
        batch["input_ids"][row, : len(ids)], batch["attention_mask"][row, : len(ids)] = ids, 1
        batch["labels"][row, len(ids) - said : len(ids)] = text[asked:]
    batch["views"] = images(1, torch.float32)[: sum(views for views, _, _ in rows)]

    shown = iter(batch["views"].split([views for views, _, _ in rows]))
    with FlopCounterMode(display=False) as counter:
        for number, mask in enumerate(batch["attention_mask"]):
            row_of = {
                name: batch[name][None, number, mask.bool()] for name in ("input_ids", "attention_mask", "labels")
            }
            states = llava.model.vision_tower(next(shown), output_hidden_states=True).hidden_states[-2]
            visual = llava.model.multi_modal_projector(states[:, 1:]).flatten(0, 1)
            segments = segment_batch(**row_of, placeholder_ids=[IMAGE], speedups=speedups)
            loss = shared_prefix_loss(llava, **row_of, visual_tokens=visual, placeholder_ids=[IMAGE], segments=segments)
            torch.autograd.backward(loss)
    counted = multimodal_batch_flop(llava.config, trainable, cast(MultimodalBatch, batch), speedups)
    assert counted == pytest.approx(counter.get_total_flops(), rel=1e-6)
