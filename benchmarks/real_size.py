"""Stage 1 at real size with random weights on a GPU: `python -m benchmarks real-size`.

For each profile, in turns with the published algorithm on the same GPU: samples/s, model FLOP utilisation, and the
peak memory beside what `lavic plan` says. The weights are the default checkpoint's shapes, drawn on the device, so
nothing is downloaded. Views are ready on the host for both, so this compares the steps; loading is `data`'s matter.
With `--toy` it runs a toy model on any device, as a check of this program, and the figures mean nothing.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from benchmarks.reference import reference_loss
from benchmarks.workload import (
    SAMPLE,
    build,
    image_processor,
    padded,
    placeholder_ids,
    prefix_ids,
    token_ids,
    toy_config,
)
from lavic.cost.counting import step_flop
from lavic.cost.default_config import default_config
from lavic.cost.gpus import known_gpu
from lavic.cost.memory import GIB, Precision, step_bytes
from lavic.model.activation_checkpointing import ActivationCheckpointing, Checkpointing, enable_checkpointing
from lavic.model.parts import TrainableParts
from lavic.model.prefix_reuse import FrozenPrefix, target_loss
from lavic.model.speedups import Speedups, speed_up
from lavic.model.visual_tokens import Normalise, cls_tokens, project


@dataclass(frozen=True)
class Profile:
    """One way to run: how the language model is held, what is recomputed, samples a step."""

    weights: str
    checkpointing: Checkpointing
    batch: int
    compile_vision: bool = False


def profiles(batches: list[int]) -> list[Profile]:
    """bf16 and NF4 at every batch size, and at batch 1 every way to keep activations."""
    everywhere = [
        Profile(weights, "none", batch, compiled)
        for weights in ("bf16", "nf4")
        for batch in batches
        for compiled in (False, True)
    ]
    return [*everywhere, *(Profile(w, how, 1) for w in ("bf16", "nf4") for how in ("selective", "full"))]


def to_nf4(language_model: nn.Module) -> None:
    """Holds every Linear of the language model in 4 bits, as `quantization: nf4` does."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for module in list(language_model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                device = child.weight.device
                packed = Linear4bit(
                    child.in_features, child.out_features, bias=False, device="meta",
                    compute_dtype=child.weight.dtype, quant_type="nf4", compress_statistics=True,
                )  # fmt: skip
                packed.weight = Params4bit(
                    child.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
                ).to(device)
                setattr(module, name, packed)


def one_batch(config: LlavaNextConfig, batch: int, device: torch.device, speedups: Speedups) -> dict[str, Any]:
    """Samples of the mean length, on the device."""
    made = padded(config, [token_ids(config, n, varied=False) for n in range(batch)], speedups)
    made["views"] = torch.randint(0, 256, (5 * batch, 3, 336, 336), dtype=torch.uint8)
    return {k: v.to(device) if hasattr(v, "to") else v for k, v in made.items()}


def seconds_a_step(step: Callable[[], None], device: torch.device, steps: int) -> float:
    """Mean wall-clock seconds of `steps` steps."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return (time.perf_counter() - start) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stepper(
    llava: LlavaNextForConditionalGeneration, loss_of: Callable[[], torch.Tensor], fused: bool
) -> Callable[[], None]:
    """An optimizer step on the loss, under autocast where weights are 16-bit."""
    trained = [p for p in llava.parameters() if p.requires_grad]
    device = trained[0].device
    optimizer = torch.optim.AdamW(trained, lr=5e-5, weight_decay=1e-5, fused=fused)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return step


def measure(
    profile: Profile, config: LlavaNextConfig, device: torch.device, rounds: int, steps: int
) -> dict[str, Any]:
    """One row: ours in turns with the reference, which holds its weights alike."""
    speedups = Speedups(compile_vision=profile.compile_vision)
    llava = build(config, 0.1, device, torch.bfloat16)
    if profile.weights == "nf4":
        to_nf4(llava.model.language_model)
    gc.collect()
    batch = one_batch(config, profile.batch, device, speedups)
    normalise = Normalise(image_processor()).to(device)
    prefix, places = FrozenPrefix(prefix_ids()), placeholder_ids(config)

    def published() -> torch.Tensor:
        pixels = normalise(batch["views"][:5], torch.bfloat16)
        return reference_loss(llava, pixels, batch["input_ids"][:1], batch["labels"][:1], places)

    def ours() -> torch.Tensor:
        visual = project(llava, cls_tokens(llava, normalise(batch["views"], torch.bfloat16)))
        return target_loss(
            llava, batch["input_ids"], batch["attention_mask"], batch["labels"], visual, places,
            prefix=prefix, split=batch["split"],
        ) / batch["targets"]  # fmt: skip

    reference_step = stepper(llava, published, fused=False)
    seconds_a_step(reference_step, device, 2)
    theirs = [seconds_a_step(reference_step, device, steps) for _ in range(rounds)]

    speed_up(llava, speedups)
    enable_checkpointing(llava, ActivationCheckpointing(vision=profile.checkpointing))
    step = stepper(llava, ours, fused=True)
    seconds_a_step(step, device, 3)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    own = [seconds_a_step(step, device, steps) / profile.batch for _ in range(rounds)]
    rate, plain_rate = 1 / statistics.median(own), 1 / statistics.median(theirs)
    return {
        "weights": profile.weights,
        "checkpointing": profile.checkpointing,
        "compiled": profile.compile_vision,
        "batch": profile.batch,
        "reference samples/s": round(plain_rate, 2),
        "samples/s": round(rate, 2),
        "ratio": round(rate / plain_rate, 2),
        **_utilisation(config, rate, device),
        **_memory(config, profile, device),
    }


def _utilisation(config: LlavaNextConfig, rate: float, device: torch.device) -> dict[str, Any]:
    gpu = known_gpu(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    flop = step_flop(config, TrainableParts(), SAMPLE, Speedups()).total
    return {"MFU": round(rate * flop / (gpu.tflops * 1e12), 3) if gpu else "unknown"}


def _memory(config: LlavaNextConfig, profile: Profile, device: torch.device) -> dict[str, Any]:
    parts = step_bytes(
        config, TrainableParts(), Precision(nf4=profile.weights == "nf4"), profile.batch, SAMPLE,
        checkpointing=ActivationCheckpointing(vision=profile.checkpointing),
    )  # fmt: skip
    planned = (sum(parts.values()) - parts["context"]) / GIB  # PyTorch's counters leave the context out
    if device.type != "cuda":
        return {"planned GiB": round(planned, 3), "peak GiB": "unknown", "error of plan": "unknown"}
    peak = torch.cuda.max_memory_allocated(device) / GIB
    return {
        "planned GiB": round(planned, 2),
        "peak GiB": round(peak, 2),
        "error of plan": f"{planned / peak - 1:+.1%}",
    }


def run(device: torch.device, batches: list[int], rounds: int, steps: int, toy: bool) -> dict[str, Any]:
    """Every profile's row; one that does not fit says so."""
    config = toy_config() if toy else default_config()
    rows = []
    for profile in profiles(batches):
        try:
            rows.append(measure(profile, config, device, rounds, steps))
        except torch.OutOfMemoryError:
            rows.append({**dict.fromkeys(rows[0], "-"), **vars(profile), "samples/s": "out of memory"})
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        print(rows[-1], flush=True)
    columns = dict.fromkeys(key for row in rows for key in row)
    return {"toy": toy, "rows": [{key: row.get(key, "-") for key in columns} for row in rows]}
