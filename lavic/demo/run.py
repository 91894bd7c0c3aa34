"""`./run_training.sh --demo`: the sample catalogue over real HTTP, a toy LLaVA-v1.6, and stage 1 on it.

`--stage 2` and `--task` go to the demos of the other tasks, a module each.

Every step but the drawing is the command that a user of real data types, and is printed as such.
"""

import asyncio
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from lavic.commands.options import OptionParser
from lavic.demo.catalogue import sample_products, write_images, write_sample
from lavic.demo.image_server import ImageServer
from lavic.demo.stage2 import DEFAULT, recommend_sample, show_recommendation, show_whole_catalogue
from lavic.demo.training_runs import fit, rows, validation_table, validations
from lavic.errors import UserError

OWN_OPTIONS = ("--demo_dir", "--seed", "--stage", "--task", "-h", "--help")

console = Console(highlight=False, soft_wrap=True)


def main(args: list[str]) -> None:
    """Runs the demo; whatever flags remain go to `python -m lavic fit`.

    Raises:
        UserError: a step failed, or what it left shows no learning.
    """
    parser = OptionParser(prog="./run_training.sh --demo", description="Shows each method learn to see, on a toy.")
    parser.add_argument("--demo_dir", type=Path, default=DEFAULT, help="Folder of everything the demo makes.")
    parser.add_argument("--seed", type=int, default=0, help="Of the toy model and of training.")
    parser.add_argument("--stage", type=Literal[1, 2], default=1, help="2 goes on from what stage 1 has left.")
    parser.add_argument("--task", type=Literal["lavic", "instruct", "vqa"], default="lavic", help="What is learned.")
    own, passed_on = _own_options(args)
    options = parser.parse(own)
    folder: Path = options.demo_dir
    started = time.monotonic()
    if options.task != "lavic":
        if options.stage == 2:
            raise UserError(f"--task {options.task} has no --stage 2; give one of them.")
        module = importlib.import_module(f"lavic.demo.{options.task}")  # its own, and what it needs, alone
        module.demonstrate(folder, options.seed, passed_on, _run, console)
        return
    if options.stage == 2:
        _say("Stage 2: the language model learns to pick one of ten products by their five tokens")
        output = recommend_sample(folder, options.seed, _run)
        show_whole_catalogue(output, console)
        show_recommendation(output, console, time.monotonic() - started)
        return
    from lavic.demo.toy_llava import build  # with PyTorch

    crawl_sample(folder)
    _say("A toy LLaVA-v1.6: the real classes and processor, trained on other products than the catalogue's")
    toy = folder / "toy_llava"
    build(toy, held_out=sample_products()[1], seed=options.seed)
    _say("Stage 1: five class tokens learn to say what the frozen language model needs")
    output, run = distil(folder, options.seed, passed_on)
    show(output, run, time.monotonic() - started)


def _own_options(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The demo's own flags with their values, and all others."""
    own: list[str] = []
    passed_on: list[str] = []
    arguments = iter(args)
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if flag in OWN_OPTIONS:
            own += [argument] if equals or flag in ("-h", "--help") else [argument, next(arguments, "")]
        else:
            passed_on.append(argument)
    return own, passed_on


def crawl_sample(folder: Path) -> None:
    """Draws the catalogue, serves it with a few faults on purpose, and crawls it into `folder/data`."""
    _say("The sample catalogue: 200 products drawn by code, served over HTTP with a few faults, and crawled")
    served, data = folder / "served", folder / "data"
    write_images(served)

    async def serve_and_crawl() -> None:
        async with ImageServer(served) as server:
            write_sample(data, base_url=server.url("").rstrip("/"))
            await asyncio.to_thread(
                _run, "crawl", "--allow-host", server.address,
                "--source", data / "item2meta_train.json", "--out", data / "train_images",
                "--source", data / "item2meta_valid.jsonl", "--out", data / "valid_images",
            )  # fmt: skip

    asyncio.run(serve_and_crawl())


def distil(folder: Path, seed: int, passed_on: list[str]) -> tuple[Path, Path]:
    """Trains stage 1; returns the output directory and the run's folder in `logs`."""
    output, data = folder / "distilled", folder / "data"
    return output, fit(
        _run, "--config", "configs/distill.yaml", "--config", "configs/demo.yaml",
        "--seed_everything", 42 + seed,
        "--model.init_args.base.name", folder / "toy_llava",
        "--data.init_args.train_data", data / "item2meta_train.json",
        "--data.init_args.val_data", data / "item2meta_valid.jsonl",
        "--data.init_args.train_images_dir", data / "train_images",
        "--data.init_args.val_images_dir", data / "valid_images",
        "--trainer.default_root_dir", output, *passed_on,
    )  # fmt: skip


def show(output: Path, run: Path, seconds: float) -> None:
    """The validations as a table, one description in words, and where the adapter is."""
    events = validations(run)
    console.print(validation_table("Stage 1, demo", events))
    samples = run / "samples" / f"epoch_{events[-1]['epoch']:.0f}" / "samples.jsonl"
    sample = rows(samples)[0]
    console.print(Text.assemble((str(sample["image"]), "bold"), f" ({sample['title']})"))
    console.print(f"  target     {sample['target']}\n  generated  {sample['generated']}\n", markup=False)
    losses = [event["val_loss"] for event in events]
    gain = events[-1]["visual_gain"]
    if losses[-1] >= losses[0] or gain <= 0:
        raise UserError(
            f"The demo did not learn: val_loss went from {losses[0]:.3f} to {losses[-1]:.3f}, with a visual_gain of"
            f" {gain:.3f}; run it again without flags, or report it with the log."
        )
    falls = "fell in each epoch" if losses == sorted(losses, reverse=True) else "fell"
    console.print(
        f"val_loss {falls}; with the right image the model is {gain:.2f} nats a token better than with another"
        " item's.\n"
        f"The best adapter is in {output / 'vision_lora_adapter_best'} (its README.md says how to load it);"
        f" curves: tensorboard --logdir logs. {seconds:.0f} s in all."
    )


def _say(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def _run(module: str, *args: object, environment: dict[str, str] | None = None) -> None:
    words = [str(arg) for arg in args]
    console.print(f"$ python -m {module} {' '.join(words)}", style="dim", markup=False)  # lists have brackets too
    command = [sys.executable, "-m", module, *words]
    status = subprocess.run(command, env={**os.environ, **(environment or {})}, check=False).returncode
    if status:
        raise UserError(f"The demo's `python -m {module}` ended with status {status}; its own message is above.")
