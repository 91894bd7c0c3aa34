"""`python -m lavic plan`: what a configuration needs and how fast it should be, before any weight is loaded."""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from transformers import LlavaNextConfig

from lavic.catalogue.descriptions import DescribedImage, read_described_images
from lavic.cost.counting import Sample, StepFlop, parameters, step_flop, trainable_parameters
from lavic.cost.gpus import Gpu, known_gpu, named_gpu
from lavic.cost.memory import GIB, Precision, step_bytes
from lavic.errors import UserError
from lavic.files import read_text
from lavic.files.json_entries import read_json
from lavic.model.activation_checkpointing import ActivationCheckpointing
from lavic.model.loading import BaseModel, load_config
from lavic.model.parts import TrainableParts
from lavic.model.speedups import Speedups

DEFAULT_MODEL = "llava-hf/llava-v1.6-mistral-7b-hf"
STAGE_1 = "lavic.tasks.distillation.Distillation"
ASSUMED_MFU = 0.45


@dataclass(frozen=True)
class Run:
    """What of a configuration decides cost: the model's settings, and how much data goes through it.

    `samples` is None where the training data is not there to be counted.
    """

    base: BaseModel
    trainable: TrainableParts
    speedups: Speedups
    checkpointing: ActivationCheckpointing
    batch_size: int
    epochs: int
    samples: int | None


def main(args: list[str]) -> None:
    """Prints the plan of `--config FILE`."""
    parser = argparse.ArgumentParser(prog="python -m lavic plan", description=__doc__)
    parser.add_argument(
        "--config", type=Path, required=True, action="append",
        help="YAML file of a training run; a further one is set on top",
    )  # fmt: skip
    parser.add_argument("--gpu", help='GPU to plan for, such as "RTX 4090"; by default the one in this machine')
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(args)
    plan = make_plan(read_run(options.config), *_gpu(options.gpu))
    print(json.dumps(plan, indent=2) if options.json else as_text(plan))


def default_config() -> LlavaNextConfig:
    """The default checkpoint's configuration, from this package: numbers only, no network."""
    file = Path(__file__).parents[1] / "cost" / "llava_v1_6_mistral_7b.json"
    return LlavaNextConfig(**read_json(file))


def read_run(paths: list[Path]) -> Run:
    """Reads the settings that decide cost out of a training YAML and what is set on top of it.

    Raises:
        UserError: a file is missing, is no YAML, or has a wrong key or value there.
    """
    whole: dict[str, Any] = {}
    for path in paths:
        try:
            whole = _on_top(whole, yaml.safe_load(read_text(path)))
        except OSError as error:
            raise UserError(f"The configuration {path} cannot be read ({error.strerror}); give another.") from None
        except (yaml.YAMLError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} is no YAML of a training run ({reason}).") from None
    model, data = (whole.get(part, {}).get("init_args", {}) for part in ("model", "data"))
    trainer = whole.get("trainer") or {}
    task = whole.get("model", {}).get("class_path", STAGE_1)
    if task != STAGE_1:
        raise UserError(f"{path} trains {task}; the plan knows {STAGE_1} only.")
    if not model:
        raise UserError(f"{path} configures no model; give a training run's, such as configs/distill.yaml.")
    parts = {
        "base": BaseModel,
        "trainable": TrainableParts,
        "speedups": Speedups,
        "checkpointing": ActivationCheckpointing,
    }
    parser = ArgumentParser(exit_on_error=False)
    for name, kind in parts.items():
        parser.add_argument(f"--{name}", type=kind, default=kind())
    try:
        settings = parser.parse_object({name: model[name] for name in parts if name in model})
    except ArgumentError as error:
        raise UserError(f"{' and '.join(map(str, paths))}: {' '.join(str(error).split())}") from None
    made = parser.instantiate_classes(settings)
    return Run(
        **{name: made[name] for name in parts},
        batch_size=int(data.get("batch_size", 1)),
        epochs=int(trainer.get("max_epochs", 1)),
        samples=_count_samples(data),
    )


def _on_top(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _on_top(below[key], value) if both else value
    return merged


def _count_samples(data: dict[str, Any]) -> int | None:
    path = Path(data.get("train_data") or "")
    if not path.is_file():
        return None
    count = sum(isinstance(entry, DescribedImage) for entry in read_described_images(path))
    return min(count, data.get("max_samples") or count)


def _gpu(name: str | None) -> tuple[str | None, Gpu | None]:
    if name:
        return name, named_gpu(name)
    if not torch.cuda.is_available():
        return None, None
    found = torch.cuda.get_device_name()
    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    known = known_gpu(found)
    return found, replace(known, gib=memory) if known else Gpu(tflops=float("nan"), gib=memory, gb_per_s=float("nan"))


def make_plan(run: Run, gpu_name: str | None = None, gpu: Gpu | None = None) -> dict[str, Any]:
    """The plan as what `--json` prints. GiB are of the batch, TFLOP of one sample."""
    config = default_config() if run.base.name == DEFAULT_MODEL else load_config(run.base.name)
    sample = Sample()
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
    precision = Precision(weights=4 if run.base.dtype == "float32" else 2, nf4=run.base.quantization == "nf4")
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
        f"                  at {sample['tokens']} text tokens, {sample['prefix']} of them the same in every prompt, "
        f"{sample['tokens'] - sample['before_placeholder']} from the first placeholder on",
        *(f"GiB {part.replace('_', ' '):<22}{size:>6.2f}" for part, size in gib.items()),
    ]
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
