"""What one row of `python -m benchmarks real-size` measures, ours in turns with the plain way on the same weights."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from benchmarks.reference import reference_language_loss, reference_loss
from benchmarks.workload import SAMPLE, build, image_processor, padded, placeholder_ids, prefix_ids, token_ids
from lavic.cost.counting import Sample, step_flop
from lavic.cost.gpus import known_gpu
from lavic.cost.memory import GIB, Precision, step_bytes
from lavic.model.activation_checkpointing import ActivationCheckpointing, Checkpointing, enable_checkpointing
from lavic.model.parts import Lora, TrainableParts
from lavic.model.prefix_reuse import IGNORED, FrozenPrefix, split_batch, target_loss
from lavic.model.speedups import PLAIN, Speedups, speed_up
from lavic.model.visual_tokens import Normalise, cls_tokens, project

CANDIDATES = 10
ANSWER = 12  # tokens of an ID with its end
STAGE_2 = replace(PLAIN, target_logits_only=True, fused_lora=True)


@dataclass(frozen=True)
class Profile:
    """One row: what is run, how the language model is held, what is recomputed, samples (or images) a step."""

    task: Literal["stage 1", "stage 2", "embed"]
    weights: Literal["bf16", "nf4"]
    batch: int
    checkpointing: Checkpointing = "none"
    compiled: bool = False
    tokens: int = SAMPLE.tokens

    @property
    def trainable(self) -> TrainableParts:
        """What the task trains."""
        if self.task == "stage 2":
            return TrainableParts(vision="frozen", projector="frozen", language="lora", lora=Lora(dropout=0.1))
        return TrainableParts(lora=Lora(dropout=0.1))

    @property
    def sample(self) -> Sample:
        """What one sample asks of the model."""
        if self.task == "stage 2":
            return Sample(views=0, tokens=self.tokens, prefix=0, before_placeholder=0, targets=ANSWER)
        return SAMPLE

    @property
    def speedups(self) -> Speedups:
        """Which are on."""
        return STAGE_2 if self.task == "stage 2" else Speedups(compile_vision=self.compiled)

    @property
    def kept(self) -> ActivationCheckpointing:
        """What is recomputed, of the part that is trained."""
        part = "language" if self.task == "stage 2" else "vision"
        return ActivationCheckpointing(**{part: self.checkpointing})


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


def measure(profile: Profile, config: LlavaNextConfig, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    """A row; the plain way runs first, on the same weights."""
    llava = build(config, 0.1, device, torch.bfloat16, profile.trainable)
    if profile.weights == "nf4":
        to_nf4(llava.model.language_model)
    gc.collect()
    plain, ours = {"stage 1": _stage_1, "stage 2": _stage_2, "embed": _embed}[profile.task](llava, profile, config)
    training = profile.task != "embed"
    step = stepper(llava, plain, fused=False) if training else _forward(llava, plain)
    seconds_a_step(step, device, 2)
    theirs = [seconds_a_step(step, device, steps) for _ in range(rounds)]

    speed_up(llava, profile.speedups)
    enable_checkpointing(llava, profile.kept)
    step = stepper(llava, ours, fused=True) if training else _forward(llava, ours)
    seconds_a_step(step, device, 3)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    own = [seconds_a_step(step, device, steps) / profile.batch for _ in range(rounds)]
    rate, plain_rate = 1 / statistics.median(own), 1 / statistics.median(theirs)
    return {
        **vars(profile),
        "plain samples/s": round(plain_rate, 2),
        "samples/s": round(rate, 2),
        "ratio": round(rate / plain_rate, 2),
        **_utilisation(config, profile, rate, device),
        **_memory(config, profile, device),
    }


Way = Callable[[], Tensor]


def _stage_1(llava: LlavaNextForConditionalGeneration, profile: Profile, config: LlavaNextConfig) -> tuple[Way, Way]:
    device, places, prefix = llava.device, placeholder_ids(config), FrozenPrefix(prefix_ids())
    rows = padded(config, [token_ids(config, n, varied=False) for n in range(profile.batch)], profile.speedups)
    rows["views"] = torch.randint(0, 256, (5 * profile.batch, 3, 336, 336), dtype=torch.uint8)
    batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in rows.items()}
    normalise = Normalise(image_processor()).to(device)

    def plain() -> Tensor:
        pixels = normalise(batch["views"][:5], torch.bfloat16)
        return reference_loss(llava, pixels, batch["input_ids"][:1], batch["labels"][:1], places)

    def ours() -> Tensor:
        visual = project(llava, cls_tokens(llava, normalise(batch["views"], torch.bfloat16)))
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        loss = target_loss(llava, *prompt, visual, places, prefix=prefix, split=batch["split"])
        shared: Tensor = loss / batch["targets"]
        return shared

    return plain, ours


def _stage_2(llava: LlavaNextForConditionalGeneration, profile: Profile, config: LlavaNextConfig) -> tuple[Way, Way]:
    device, places, rows = llava.device, placeholder_ids(config), profile.batch
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, config.text_config.vocab_size - 100, (rows, profile.tokens), generator=generator)
    shown = torch.tensor(places * CANDIDATES)
    ids[:, 40 : 40 + len(shown)] = shown
    labels = torch.where(torch.arange(profile.tokens) >= profile.tokens - ANSWER, ids, IGNORED)
    mask = torch.ones_like(ids)
    split = split_batch(ids, mask, labels, places, speedups=STAGE_2).to(device)
    ids, mask, labels = (tensor.to(device) for tensor in (ids, mask, labels))
    cls = torch.randn(rows * len(shown), config.vision_config.hidden_size, device=device, dtype=torch.bfloat16)

    def plain() -> Tensor:
        with torch.no_grad():
            visual = project(llava, cls[: len(shown)])
        return reference_language_loss(llava, visual, ids[:1], labels[:1], places)

    def ours() -> Tensor:
        with torch.no_grad():
            visual = project(llava, cls)
        return target_loss(llava, ids, mask, labels, visual, places, split=split) / (rows * ANSWER)

    return plain, ours


def _embed(llava: LlavaNextForConditionalGeneration, profile: Profile, config: LlavaNextConfig) -> tuple[Way, Way]:
    views = torch.randint(0, 256, (5 * profile.batch, 3, 336, 336), dtype=torch.uint8, device=llava.device)
    normalise = Normalise(image_processor()).to(llava.device)
    return (  # one image at a time, the last layer whole; several, their class tokens alone
        lambda: cls_tokens(llava, normalise(views[:5], torch.bfloat16)),
        lambda: cls_tokens(llava, normalise(views, torch.bfloat16)),
    )


def _forward(llava: LlavaNextForConditionalGeneration, way: Way) -> Callable[[], None]:
    """The way without gradients, its adapters without dropout; what it gives is read by nobody."""
    llava.eval()

    @torch.inference_mode()
    def step() -> None:
        with torch.autocast(llava.device.type, torch.bfloat16):
            way()

    return step


def _utilisation(config: LlavaNextConfig, profile: Profile, rate: float, device: torch.device) -> dict[str, Any]:
    gpu = known_gpu(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    flop = step_flop(config, profile.trainable, profile.sample, profile.speedups)
    counted = flop.vision.forward if profile.task == "embed" else flop.total
    share = rate * counted / (gpu.tflops * 1e12) if gpu else None
    return {"TFLOP a sample": round(counted / 1e12, 3), "MFU": "unknown" if share is None else round(share, 3)}


def _memory(config: LlavaNextConfig, profile: Profile, device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"planned GiB": "-", "peak GiB": "unknown", "error of plan": "-"}
    if profile.task != "embed":  # the plan is of training
        precision = Precision(nf4=profile.weights == "nf4")
        parts = step_bytes(
            config, profile.trainable, precision, profile.batch, profile.sample, profile.speedups, profile.kept
        )
        planned = (sum(parts.values()) - parts["context"]) / GIB  # PyTorch's counters leave the context out
        found["planned GiB"] = round(planned, 3)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / GIB
        found["peak GiB"] = round(peak, 3)
        if profile.task != "embed":
            found["error of plan"] = f"{planned / peak - 1:+.1%}"
    return found
