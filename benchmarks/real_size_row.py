"""What one row of `python -m benchmarks real-size` measures, ours in turns with the plain way on the same weights."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from benchmarks.real_size_ways import TEXT, Profile, Way, ways
from benchmarks.workload import build, random_llava
from lavic.cost.counting import step_flop
from lavic.cost.gpus import Gpu, known_gpu
from lavic.cost.images import describing
from lavic.cost.memory import GIB, Precision, step_bytes
from lavic.model.activation_checkpointing import enable_checkpointing
from lavic.model.speedups import speed_up

MOST_COSTLY = 10


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
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return step


def measure(row: Profile, config: LlavaNextConfig, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    """A row; the plain way runs first, on the same weights."""
    if row.task == "describe":
        llava = random_llava(config, device, torch.bfloat16).eval()
    else:
        llava = build(config, 0.1, device, torch.bfloat16, row.trainable)
    if row.weights == "nf4":
        to_nf4(llava.model.language_model)
    gc.collect()
    plain, ours, *prefill = ways(llava, row, config)
    step = stepper(llava, plain, fused=False) if row.trains else _forward(llava, plain)
    seconds_a_step(step, device, 2)
    theirs = [seconds_a_step(step, device, steps) for _ in range(rounds)]

    speed_up(llava, row.speedups)
    enable_checkpointing(llava, row.kept)
    step = stepper(llava, ours, fused=True) if row.trains else _forward(llava, ours)
    seconds_a_step(step, device, 3)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    own = [seconds_a_step(step, device, steps) / row.batch for _ in range(rounds)]
    rate, plain_rate = 1 / statistics.median(own), 1 / statistics.median(theirs)
    first = [seconds_a_step(_forward(llava, way), device, steps) / row.batch for way in prefill]
    gpu = known_gpu(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return {
        **vars(row),
        "plain samples/s": round(plain_rate, 2),
        "samples/s": round(rate, 2),
        "ratio": round(rate / plain_rate, 2),
        **(_parts(config, row, first[0], 1 / rate, gpu) if first else _utilisation(config, row, rate, gpu)),
        **_memory(config, row, device),
        "top ten": most_costly(step, device),
    }


def most_costly(step: Callable[[], None], device: torch.device) -> list[str]:
    """The ten operations of a step that take most of the device's time: name, share, calls."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        step()
        _wait(device)
    times = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.count)
        for event in profiled.key_averages()
    }
    whole = sum(time for time, _ in times.values()) or 1.0
    first = sorted(times.items(), key=lambda item: -item[1][0])[:MOST_COSTLY]
    return [f"{time / whole:.1%} {name[:90]} x{count}" for name, (time, count) in first]


def _forward(llava: LlavaNextForConditionalGeneration, way: Way) -> Callable[[], None]:
    """The way without gradients, its adapters without dropout; what it gives is read by nobody."""
    llava.eval()

    @torch.inference_mode()
    def step() -> None:
        with torch.autocast(llava.device.type, torch.bfloat16):
            way()

    return step


def _utilisation(config: LlavaNextConfig, row: Profile, rate: float, gpu: Gpu | None) -> dict[str, Any]:
    flop = step_flop(config, row.trainable, row.sample, row.speedups)
    counted = flop.vision.forward if row.task == "embed" else flop.total
    share = rate * counted / (gpu.tflops * 1e12) if gpu else None
    return {"TFLOP a sample": round(counted / 1e12, 3), "MFU": "unknown" if share is None else round(share, 3)}


def _parts(config: LlavaNextConfig, row: Profile, prefill: float, whole: float, gpu: Gpu | None) -> dict[str, Any]:
    """`describe`: seconds an image before its first token and after it, what of the GPU's FLOP the first part reaches,
    and what of its bandwidth the second."""
    reading, decode = describing(config, row.batch, TEXT, row.tokens), max(whole - prefill, 1e-9)
    return {
        "TFLOP a sample": round(reading.flop / 1e12, 3),
        "MFU": round(reading.flop / prefill / (gpu.tflops * 1e12), 3) if gpu else "unknown",
        "prefill s": round(prefill, 4),
        "decode s": round(decode, 4),
        "of bandwidth": round(reading.decoded_bytes / decode / (gpu.gb_per_s * 1e9), 3) if gpu else "unknown",
    }


def _memory(config: LlavaNextConfig, row: Profile, device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"planned GiB": "-", "peak GiB": "unknown", "error of plan": "-"}
    if row.trains:  # the plan is of training
        precision = Precision(nf4=row.weights == "nf4")
        parts = step_bytes(config, row.trainable, precision, row.batch, row.sample, row.speedups, row.kept)
        planned = (sum(parts.values()) - parts["context"]) / GIB  # PyTorch's counters leave the context out
        found["planned GiB"] = round(planned, 3)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / GIB
        found["peak GiB"] = round(peak, 3)
        if row.trains:
            found["error of plan"] = f"{planned / peak - 1:+.1%}"
    return found
