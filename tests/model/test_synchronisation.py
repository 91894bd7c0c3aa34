"""On a GPU the host never waits within a step: an operation that would make it wait raises."""

import pytest
import torch

from lavic.model.prefix_reuse import FrozenPrefix, segment_batch, shared_prefix_loss
from lavic.model.speedups import Speedups, speed_up
from tests.model.toy import (
    PLACEHOLDERS,
    PREFIX,
    each,
    images,
    lora_parameters,
    ragged_batch,
    toy_llava,
    visual_tokens,
)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_waits_for_nothing() -> None:
    llava = toy_llava(dropout=0.1).float().cuda()
    speed_up(llava, Speedups())
    trained = list(lora_parameters(llava).values())
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    prefix = FrozenPrefix(PREFIX)
    host = ragged_batch()
    segments = segment_batch(**host, placeholder_ids=PLACEHOLDERS, prefix_ids=prefix.ids).to("cuda")
    batch = each(host, torch.Tensor.cuda)
    pixels = images(3, torch.float32).cuda()

    def step() -> None:
        visual = visual_tokens(llava, pixels)
        loss = shared_prefix_loss(
            llava, **batch, visual_tokens=visual, placeholder_ids=PLACEHOLDERS, prefix=prefix, segments=segments
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()  # computes what is kept, and tunes kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            pixels.sum().item()
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
