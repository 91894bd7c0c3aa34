"""Operations that a training step dispatches: what CPUs can tell of kernel launches. `python -m benchmarks operations`.

The default checkpoint is built on the meta device, whole, and a forward and backward pass counted operation by
operation: views and allocations, which launch nothing, are left out. Attention counts as one operation or as few as
PyTorch makes of it there; a GPU's kernels for it differ. Nothing is computed, so any machine gives the same numbers.
"""

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.real_size_ways import ANSWER, CANDIDATES, STAGE_2
from benchmarks.workload import padded, placeholder_ids, prefix_ids, token_ids
from lavic.batching.padding import IGNORED
from lavic.cost.known_configs import default_config
from lavic.model.loading import build_on_meta
from lavic.model.parts import Lora, TrainableParts, place_adapters, unwrap
from lavic.model.prefix_reuse import FrozenPrefix, segment_batch, shared_prefix_loss
from lavic.model.speedups import PLAIN, Speedups, speed_up
from lavic.model.visual_tokens import cls_tokens, project

LAUNCHES_NOTHING = {"aten::detach", "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::_unsafe_view"}


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is dispatched inside it, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if not func.is_view and name not in LAUNCHES_NOTHING:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def stage_1(speedups: Speedups) -> Counter[str]:
    """Of a sample of the mean length."""
    config = default_config()
    llava = unwrap(place_adapters(build_on_meta(config), TrainableParts(lora=Lora(dropout=0.1)), "")).train()
    speed_up(llava, speedups)
    places, prefix = placeholder_ids(config), FrozenPrefix(prefix_ids())
    batch = padded(config, [token_ids(config, 0, varied=False)], speedups)
    segments = batch["segments"].to("meta")
    if segments.prefix_length:
        prefix.keys_values(llava)  # once a run, not once a step
    pixels = torch.empty(5, 3, 336, 336, device="meta")
    with Operations() as operations:
        visual = project(llava, cls_tokens(llava, pixels))
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        loss = shared_prefix_loss(llava, *prompt, visual, places, prefix=prefix, segments=segments)
        torch.autograd.backward(loss)
    counts: Counter[str] = operations.counts
    return counts


def stage_2(speedups: Speedups, tokens: int = 500) -> Counter[str]:
    """Of a sample of `tokens` tokens with ten candidates."""
    config = default_config()
    trainable = TrainableParts(vision="frozen", projector="frozen", language="lora", lora=Lora(dropout=0.1))
    llava = unwrap(place_adapters(build_on_meta(config), trainable, "")).train()
    speed_up(llava, speedups)
    places = placeholder_ids(config)
    ids = torch.arange(3, 3 + tokens)[None]
    ids[0, 40 : 40 + 5 * CANDIDATES] = torch.tensor(places * CANDIDATES)
    labels = torch.where(torch.arange(tokens) >= tokens - ANSWER, ids, IGNORED)
    mask = torch.ones_like(ids)
    segments = segment_batch(ids, mask, labels, places, speedups=speedups).to("meta")
    cls = torch.empty(5 * CANDIDATES, config.vision_config.hidden_size, device="meta")
    with Operations() as operations:
        with torch.no_grad():
            visual = project(llava, cls)
        torch.autograd.backward(shared_prefix_loss(llava, ids, mask, labels, visual, places, segments=segments))
    counts: Counter[str] = operations.counts
    return counts


def run() -> dict[str, Any]:
    """A row for each way: all speedups, none, and all but one."""
    switches = [field.name for field in fields(Speedups) if field.name != "compile_vision"]  # which needs real tensors
    ways = {"all": Speedups(), "none": PLAIN, **{f"all but {s}": replace(Speedups(), **{s: False}) for s in switches}}
    rows = [_row("stage 1", way, stage_1(speedups)) for way, speedups in ways.items()]
    plainer = {"all": STAGE_2, "none": PLAIN, "all but fused_lora": replace(STAGE_2, fused_lora=False)}
    for way, speedups in plainer.items():
        rows.append(_row("stage 2", way, stage_2(speedups)))
    return {"rows": rows}


def _row(task: str, way: str, counts: Counter[str]) -> dict[str, Any]:
    most = ", ".join(f"{name.removeprefix('aten::')} {count}" for name, count in counts.most_common(4))
    return {"task": task, "speedups": way, "operations a step": sum(counts.values()), "most of them": most}
