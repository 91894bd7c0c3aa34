"""`python -m lavic plan`: what a configuration needs and how fast it should be, before any weight is loaded."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaNextConfig

from lavic.catalogue.descriptions import DescribedImage, read_described_images
from lavic.commands.flags import ABOUT, add_plan_options
from lavic.commands.options import read_task
from lavic.cost.counting import Sample, StepFlop, parameters, step_flop, trainable_parameters
from lavic.cost.gpus import Gpu, known_gpu, named_gpu
from lavic.cost.images import describing, embedding, most_views
from lavic.cost.known_configs import ONE_VIEW_MODEL, known_config
from lavic.cost.memory import GIB, Precision, step_bytes
from lavic.errors import UserError
from lavic.files.hub import looks_like_path
from lavic.model.activation_checkpointing import ActivationCheckpointing
from lavic.model.loading import AnyLlavaConfig, BaseModel, load_config
from lavic.model.parts import TrainableParts
from lavic.model.speedups import PLAIN, Speedups
from lavic.ranges import check_ranges
from lavic.tasks.base import Task, TaskData
from lavic.tasks.distillation import Distillation
from lavic.tasks.instruction import Instruction
from lavic.tasks.recommendation import Recommendation
from lavic.tasks.vqa import Vqa

log = logging.getLogger(__name__)

ASSUMED_MFU = 0.45
ANSWER = 12  # tokens of an item's ID, or of a short answer, with its end: all that is supervised


@dataclass(frozen=True)
class Run:
    """What of a configuration decides cost: the model's settings, and how much data goes through it.

    `samples` is None where the training data is not there to be counted.
    """

    base: BaseModel
    trainable: TrainableParts
    speedups: Speedups
    checkpointing: ActivationCheckpointing
    sample: Sample
    batch_size: int
    epochs: int
    samples: int | None


def main(argv: Sequence[str]) -> int:
    """Prints the plan of `--config FILE`."""
    task, data, options = read_task(argv, "python -m lavic plan", ABOUT["plan"], add_plan_options)
    check_ranges("--", prompt_tokens=options.prompt_tokens, images=options.images)
    run = planned_run(task, data, int(options.trainer.get("max_epochs") or 1), options.prompt_tokens)
    name, gpu = _gpu(options.gpu)
    plan = make_plan(run, name, gpu)
    plan["strategy"] = _sharding(options.trainer.get("strategy"))
    if options.images:
        plan["images"] = image_plan(load_config_of(run.base), options.images, gpu)
    print(json.dumps(plan, indent=2) if options.json else as_text(plan))
    return 0


def planned_run(task: Task, data: TaskData, epochs: int, prompt_tokens: int) -> Run:
    """What of a task and its data decides cost.

    Raises:
        UserError: the plan does not know the task.
    """
    common: dict[str, Any] = {"base": task.base, "checkpointing": task.checkpointing}
    common |= {"batch_size": data.batch_size, "epochs": epochs}
    if isinstance(task, Distillation):
        samples = _count_samples(data.sources["train"].metadata, data.max_samples)  # type: ignore[attr-defined]
        return Run(trainable=task.trainable, speedups=task.speedups, sample=Sample(), samples=samples, **common)
    if isinstance(task, Recommendation):
        parts = TrainableParts(vision="frozen", projector="frozen", language="lora", lora=task.lora)
        sample = Sample(views=0, tokens=prompt_tokens, prefix=0, before_placeholder=0, targets=ANSWER)
        speedups = replace(PLAIN, target_logits_only=True, fused_lora=True)
        return Run(trainable=parts, speedups=speedups, sample=sample, samples=None, **common)
    if isinstance(task, Vqa | Instruction):
        class_tokens = isinstance(task, Instruction) and task.entry.tokens == "cls"
        views, image_tokens = (5, 5) if class_tokens else most_views(load_config_of(task.base))
        # of a question, a short answer is supervised; of a conversation, about half
        targets = min(prompt_tokens, ANSWER) if isinstance(task, Vqa) else (prompt_tokens + 1) // 2
        tokens = prompt_tokens + image_tokens
        sample = Sample(views, tokens, prefix=0, before_placeholder=0, targets=targets, patches=not class_tokens)
        speedups = replace(PLAIN, target_logits_only=True, fused_lora=True)
        return Run(trainable=task.trainable, speedups=speedups, sample=sample, samples=None, **common)
    name = task.report.task
    raise UserError(f"The plan does not know the task {name}; it knows those that LaViC ships.")


def _sharding(strategy: Any) -> str | None:
    """The strategy's name if it divides weights or optimizer state over processes, which the plan does not count."""
    named = strategy.get("class_path") if isinstance(strategy, Mapping) else getattr(strategy, "class_path", strategy)
    name = named.rpartition(".")[2] if isinstance(named, str) else type(named).__name__
    return name if name in ("ModelParallelStrategy", "FSDPStrategy", "Zero") else None


def _count_samples(path: Path, most: int | None) -> int | None:
    if not path.is_file():
        return None
    count = sum(isinstance(entry, DescribedImage) for entry in read_described_images(path))
    return min(count, most or count)


def _gpu(name: str | None) -> tuple[str | None, Gpu | None]:
    if name:
        return name, named_gpu(name)
    if not torch.cuda.is_available():
        return None, None
    found = torch.cuda.get_device_name()
    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    known = known_gpu(found)
    return found, replace(known, gib=memory) if known else Gpu(tflops=float("nan"), gib=memory, gb_per_s=float("nan"))


def load_config_of(base: BaseModel) -> AnyLlavaConfig:
    """A checkpoint's configuration; the default ones' need no network.

    A directory that is still to be made, as the one that configs/align.yaml starts from, is planned as LLaVA-1.5 7B.
    """
    if looks_like_path(base.name) and not Path(base.name).exists():
        log.warning("There is no directory %s yet; this is the plan of %s.", base.name, ONE_VIEW_MODEL)
        return known_config(ONE_VIEW_MODEL)
    return known_config(base.name) or load_config(base.name)


def image_plan(config: AnyLlavaConfig, images: int, gpu: Gpu | None) -> dict[str, Any]:
    """What `embed` and `describe` take for so many images."""
    plan: dict[str, Any] = {"images": images}
    for command, reading in {"embed": embedding(config), "describe": describing(config)}.items():
        seconds = reading.seconds(gpu, ASSUMED_MFU) if gpu and gpu.tflops == gpu.tflops else None
        hours = images * seconds / 3600 if seconds else None
        plan[command] = {"tflop_per_image": reading.flop / 1e12, "hours": hours}
    return plan


def make_plan(run: Run, gpu_name: str | None = None, gpu: Gpu | None = None) -> dict[str, Any]:
    """The plan as what `--json` prints. GiB are of the batch, TFLOP of one sample."""
    config = load_config_of(run.base)
    sample = run.sample
    flop = step_flop(config, run.trainable, sample, run.speedups, run.checkpointing)
    gib = {part: size / GIB for part, size in _bytes(config, run, sample).items()}
    total = sum(gib.values())
    fits = None if gpu is None else total <= gpu.gib
    speed = gpu.tflops * 1e12 * ASSUMED_MFU / flop.total if gpu and gpu.tflops == gpu.tflops else None
    seen = run.samples * run.epochs if run.samples else None
    return {
        "model": run.base.name,
        "gpu": gpu_name,
        "gpu_gib": gpu.gib if gpu else None,
        "batch_size": run.batch_size,
        "parameters": {**parameters(config), "total": sum(parameters(config).values())},
        "trainable_parameters": sum(trainable_parameters(config, run.trainable).values()),
        "sample": asdict(sample),
        "tflop_per_sample": flop.total / 1e12,
        "tflop_by_part": _by_part(flop),
        "gib": {**gib, "total": total},
        "fits": fits,
        "changes": _changes(config, run, sample, gpu.gib) if gpu and not fits else [],
        "assumed_mfu": ASSUMED_MFU if speed else None,
        "samples_per_second": speed,
        "samples": seen,
        "hours": seen / speed / 3600 if seen and speed else None,
    }


def _by_part(flop: StepFlop) -> dict[str, float]:
    return {
        f"{part}_{direction}": getattr(getattr(flop, part), direction) / 1e12
        for part in ("vision", "language")
        for direction in ("forward", "backward")
    }


def _bytes(config: LlavaNextConfig, run: Run, sample: Sample) -> dict[str, float]:
    precision = Precision(weights=4 if run.base.dtype == "float32" else 2, nf4=run.base.quantization != "none")
    return step_bytes(config, run.trainable, precision, run.batch_size, sample, run.speedups, run.checkpointing)


def _changes(config: LlavaNextConfig, run: Run, sample: Sample, gib: float) -> list[str]:
    """The cheapest settings that fit: those with the fewest FLOP, then the fewest changes; [] if none does."""
    fitting: list[tuple[float, int, list[str]]] = []
    batches = [run.batch_size >> halvings for halvings in range(run.batch_size.bit_length())]
    for batch, vision, language, nf4 in product(
        batches, ("none", "selective", "full"), ("none", "full"), (False, True)
    ):
        quantization = "nf4" if nf4 else run.base.quantization
        tried = replace(
            run,
            batch_size=batch,
            checkpointing=ActivationCheckpointing(vision, language),  # type: ignore[arg-type]
            base=replace(run.base, quantization=quantization),
        )
        if sum(_bytes(config, tried, sample).values()) / GIB > gib:
            continue
        named = {
            f"data.batch_size: {batch}, trainer.accumulate_grad_batches times {run.batch_size // batch}": (
                batch != run.batch_size
            ),
            f"model.checkpointing.vision: {vision}": vision != run.checkpointing.vision,
            f"model.checkpointing.language: {language}": language != run.checkpointing.language,
            f"model.base.quantization: {quantization}": quantization != run.base.quantization,
        }
        changes = [change for change, made in named.items() if made]
        flop = step_flop(config, run.trainable, sample, run.speedups, tried.checkpointing).total
        # 4-bit weights are unpacked at every use and change the loss a little: last but for not fitting at all
        fitting.append((flop * (1.5 if quantization != run.base.quantization else 1.0), len(changes), changes))
    return min(fitting, default=(0.0, 0, []))[2]


def as_text(plan: dict[str, Any]) -> str:
    """The plan for people."""
    parts, gib, sample = plan["tflop_by_part"], plan["gib"], plan["sample"]
    lines = [
        f"{plan['model']}, batch {plan['batch_size']}",
        f"parameters        {plan['parameters']['total']:>14,}   "
        + ", ".join(f"{part} {count:,}" for part, count in plan["parameters"].items() if part != "total"),
        f"trainable         {plan['trainable_parameters']:>14,}",
        f"TFLOP a sample    {plan['tflop_per_sample']:>14.2f}   "
        + ", ".join(f"{part.replace('_', ' ')} {tflop:.2f}" for part, tflop in parts.items()),
        f"                  at {sample['tokens']} tokens, {sample['prefix']} of them the same in every prompt, "
        f"{sample['tokens'] - sample['before_placeholder']} from the first placeholder on",
        *(f"GiB {part.replace('_', ' '):<22}{size:>6.2f}" for part, size in gib.items()),
    ]
    if plan.get("strategy"):
        lines.append(f"counted for a process that holds all of it; {plan['strategy']} divides some over the processes")
    for command in ("embed", "describe") if "images" in plan else ():
        cost, count = plan["images"][command], plan["images"]["images"]
        time = "" if cost["hours"] is None else f", {cost['hours']:.2f} hours"
        lines.append(f"{command:<18}{cost['tflop_per_image']:>14.2f}   TFLOP an image{time} for {count:,} images")
    if plan["gpu"] is None:
        return "\n".join([*lines, 'no GPU here; name one with --gpu, such as --gpu "RTX 4090"'])
    lines.append(f"{'fits' if plan['fits'] else 'does not fit'} on {plan['gpu']} ({plan['gpu_gib']:.0f} GiB)")
    if not plan["fits"]:
        wanted = "; ".join(plan["changes"]) or "none of batch size, checkpointing and nf4 makes it fit"
        lines.append(f"cheapest change: {wanted}")
    if plan["samples_per_second"] is None:
        return "\n".join([*lines, "speed unknown: this GPU's throughput is not in the table"])
    hours = f", {plan['hours']:.2f} hours for {plan['samples']:,} samples" if plan["hours"] else ""
    mfu = f"if {plan['assumed_mfu']:.0%} of the GPU's dense 16-bit throughput is reached (assumed, not measured)"
    return "\n".join([*lines, f"{plan['samples_per_second']:.2f} samples/s{hours}, {mfu}"])
