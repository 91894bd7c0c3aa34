"""The NF4 language model's loss beside bf16's, on a toy model loaded as training loads it."""

from pathlib import Path

import pytest
import torch

from lavic.model.loading import BaseModel, load_llava
from lavic.model.prefix_reuse import shared_prefix_loss
from tests.model.toy import ragged_batch

pytest.importorskip("bitsandbytes")


def test_nf4_s_loss_is_within_two_percent_of_bf16_s(tiny: Path) -> None:
    """The same fast loss runs on both; 4-bit weights really are there, and really change a little."""
    batch = ragged_batch()
    placeholders = [120, 121, 122, 123, 124]
    losses = []
    for quantization in ("none", "nf4"):
        base = BaseModel(name=str(tiny), dtype="bfloat16", quantization=quantization)
        llava = load_llava(base, torch.device("cpu"))
        packed = llava.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
        assert packed == (quantization == "nf4")
        width = llava.config.text_config.hidden_size
        generator = torch.Generator().manual_seed(1)
        visual = torch.randn(15, width, generator=generator).bfloat16().requires_grad_()
        loss = shared_prefix_loss(llava, **batch, visual_tokens=visual, placeholder_ids=placeholders)
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        assert visual.grad is not None
        assert visual.grad.abs().sum() > 0
        losses.append(float(loss))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
