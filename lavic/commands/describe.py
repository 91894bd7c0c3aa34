"""`python -m lavic describe`: the undistilled LLaVA-v1.6 describes every image of a catalogue, for stage 1 to learn.

It can be stopped and started again at any time. `torchrun --nproc-per-node N -m lavic describe ...`, or SLURM's srun,
shares the images between N devices.
"""

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from lavic.catalogue.description_journal import Journal, Said, Waiting, waiting_images, write_described
from lavic.catalogue.images import BrokenImage, open_image
from lavic.commands.options import OptionParser, with_long_names
from lavic.errors import UserError
from lavic.files import writing
from lavic.model.describing import MAX_NEW_TOKENS, PROMPT, Describer, Prompter, Seen
from lavic.model.loading import BaseModel, load_llava
from lavic.model.processor import load_processor
from lavic.ranges import check_ranges
from lavic.training.run_folder import lock_output

log = logging.getLogger(__name__)

WINDOW = 8  # batches whose images are put in order of length before they are cut into batches


def describe(
    base: BaseModel,
    metadata: Path = Path("data/item2meta_train.json"),
    images_dir: Path = Path("data/train_images"),
    output: Path | None = None,
    batch_size: int = 8,
    max_new_tokens: int = MAX_NEW_TOKENS,
    prompt: str = PROMPT,
    num_workers: int = 4,
) -> None:
    """Writes a new item2meta file with a description of every image that has none.

    Args:
        base: the checkpoint, and how it is held in memory.
        metadata: the item2meta file; it stays as it is.
        images_dir: the folder of its images.
        output: the new file, or --out FILE; beside the old one, with `_described` behind its name, when not given.
        batch_size: images described at a time on each device.
        max_new_tokens: tokens of a description at most, its end counted; a longer one ends with its last sentence.
        prompt: what the model is asked, with {title} and {image} in their places.
        num_workers: processes that read and cut images, for each device.
    """
    check_ranges(batch_size=batch_size, max_new_tokens=max_new_tokens, num_workers=num_workers)
    if not metadata.is_file():
        raise UserError(f"The metadata file {metadata} does not exist; write it with `python -m lavic import`.")
    if not images_dir.is_dir():
        raise UserError(f"The images folder {images_dir} does not exist; fill it with `python -m crawl`.")
    output = output or metadata.with_name(f"{metadata.name.split('.')[0]}_described{_suffix(metadata)}")
    if output.exists() and output.samefile(metadata):
        raise UserError(f"The output {output} is the metadata file itself; give another path.")
    started = time.time()
    shard, shards, local = _place()
    prompter = Prompter(load_processor(base.name, "anyres"), prompt)
    asked = json.dumps([base.name, base.dtype, base.quantization, prompt, max_new_tokens])
    folder = output.with_name(f"{output.name}.journal") / hashlib.sha256(asked.encode()).hexdigest()[:12]
    journal = Journal(folder, shard, shards)
    lock_output(folder, "--output")
    said = journal.read()
    all_images = list(waiting_images(metadata))
    waiting = [
        image
        for number, image in enumerate(all_images)
        if number % shards == shard and (image.image not in said or said[image.image].fault)
    ]
    if waiting:
        device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        describer = Describer(load_llava(base, device), prompter, max_new_tokens)
        loader = DataLoader(
            _Images(waiting, images_dir, prompter), batch_size=None, num_workers=num_workers, collate_fn=_as_it_is
        )
        _run(iter(loader), len(waiting), describer, journal.open(), batch_size)
        journal.close()
    with journal.turn():
        if journal.is_in(output, since=started):
            log.info("Another process has written %s.", output)
        else:
            _finish(metadata, output, journal, all_images)


def _run(seen: Iterator[Any], count: int, describer: Describer, journal: Journal, batch_size: int) -> None:
    bar = Progress(
        TextColumn("describing"), BarColumn(), MofNCompleteColumn(), TextColumn("images, left:"), TimeRemainingColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=count)
        while window := list(islice(seen, WINDOW * batch_size)):
            journal.add(*(Said(image, fault=fault) for image, fault in window if isinstance(fault, str)))
            bar.advance(task, sum(isinstance(fault, str) for _, fault in window))
            # alike in views and length, so that little is padded
            whole = sorted((one for one in window if isinstance(one[1], Seen)), key=lambda one: _cost(one[1]))
            for start in range(0, len(whole), batch_size):
                batch = whole[start : start + batch_size]
                texts = describer.describe([one for _, one in batch])
                journal.add(*(Said(image, text) for (image, _), text in zip(batch, texts, strict=True)))
                bar.advance(task, len(batch))


def _finish(metadata: Path, output: Path, journal: Journal, images: Sequence[Waiting]) -> None:
    said = journal.read()
    open_images = sum(image.image not in said for image in images)
    if open_images:
        log.info("%d images are still with other processes; the last of them writes %s.", open_images, output)
        return
    faults = {image.image: said[image.image].fault for image in images if said[image.image].fault}
    left_out = output.with_name(f"{output.name}.left_out.jsonl")
    with writing(left_out) as file:
        file.writelines(json.dumps({"where": image, "reason": fault}) + "\n" for image, fault in faults.items())
    if images and len(faults) == len(images):
        reason, _ = Counter(faults.values()).most_common(1)[0]
        raise UserError(f"None of the {len(images)} images of {metadata} could be described ({reason}).")
    write_described(metadata, output, said)
    print(f"{len(images) - len(faults)} images described -> {output}")
    for reason, number in Counter(faults.values()).most_common():
        print(f"left out: {number} x {reason}")
    if faults:
        print(f"what was left out is listed in {left_out}")


class _Images(Dataset[tuple[str, Seen | str]]):
    """Each waiting image's name, with what the model is given of it or why that cannot be."""

    def __init__(self, waiting: Sequence[Waiting], folder: Path, prompter: Prompter) -> None:
        self.waiting, self.folder, self.prompter = waiting, folder, prompter

    def __len__(self) -> int:
        return len(self.waiting)

    def __getitem__(self, index: int) -> tuple[str, Seen | str]:
        one = self.waiting[index]
        try:
            return one.image, self.prompter.see(one.title, open_image(self.folder / one.image))
        except BrokenImage as broken:
            return one.image, str(broken)


def _cost(seen: Seen) -> tuple[int, float]:
    """Views, and the aspect ratio, on which the number of visual tokens depends."""
    return len(seen.views), max(seen.height / seen.width, seen.width / seen.height)


def _place() -> tuple[int, int, int]:
    """This process's number, how many there are, and its number on this machine, by torchrun or by SLURM."""
    env = os.environ
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK") if "RANK" in env else ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    shard, shards, local = (int(env.get(name, default)) for name, default in zip(names, ("0", "1", "0"), strict=True))
    return shard, max(shards, shard + 1), local


def _suffix(metadata: Path) -> str:
    return Path(metadata.name.removesuffix(".gz")).suffix or ".json"


def _as_it_is(one: Any) -> Any:
    return one


def main(argv: list[str]) -> int:
    """The command line; see `describe` for the options."""
    parser = OptionParser(prog="python -m lavic describe", description="Describes every image.")
    parser.add_argument("--config", action="config", help="YAML file of the options below: configs/describe.yaml.")
    parser.add_function_arguments(describe, fail_untyped=False)
    options = parser.made(with_long_names(argv))
    describe(**{name: value for name, value in vars(options).items() if name != "config"})
    return 0
