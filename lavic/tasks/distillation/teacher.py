"""The undistilled LLaVA over a whole catalogue: every image that has no description of what it shows now gets one.

A text is kept by all that it was written from: the image's bytes, the prompt with the item's title in it, the model,
the rule for decoding images and the length allowed. A photograph or a title that changes is described anew, the rest is
not.
"""

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from lavic.catalogue.description_journal import (
    Journal,
    Said,
    Waiting,
    names_images,
    waiting_images,
    write_described,
)
from lavic.catalogue.images import RULE, BrokenImage, open_image
from lavic.errors import UserError
from lavic.files import file_hash, writing
from lavic.files.launched import this_process
from lavic.model.checks import check_files
from lavic.model.describing import Describer, Prompter, Seen
from lavic.model.identity import model_identity
from lavic.model.loading import BaseModel, load_llava
from lavic.model.processor import load_processor
from lavic.training.run_folder import lock_output

log = logging.getLogger(__name__)

FORM = 1  # of how a description is written; a new number makes all that were kept void
WINDOW = 8  # batches whose images are put in order of length before they are cut into batches


@dataclass(frozen=True, slots=True)
class Described:
    """What became of a catalogue's images: how many were described, why others were not, and where that is listed."""

    images: int
    left_out: Counter[str]
    listed: Path


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A waiting image, and the hash of all that its description is written from."""

    waiting: Waiting
    key: str


def describe_catalogue(
    base: BaseModel,
    metadata: Path,
    images_dir: Path,
    output: Path,
    batch_size: int,
    max_new_tokens: int,
    prompt: str,
    num_workers: int,
) -> Described | None:
    """Describes this process's share of the images, and writes the new file when no other process has any left.

    Args:
        base: the checkpoint, and how it is held in memory.
        metadata: the item2meta file.
        images_dir: the folder of its images.
        output: the new item2meta file; the journal lies beside it.
        batch_size: images described at a time on each device.
        max_new_tokens: tokens of a description at most.
        prompt: with {title} and {image} in their places.
        num_workers: processes that read and cut images.

    Returns:
        What was described, or None where another process says it.

    Raises:
        UserError: no image is named, or none could be described.
    """
    started = time.time()
    shard, shards, local = this_process()
    processor = load_processor(base.name, "anyres")
    check_files(base, processor)
    prompter = Prompter(processor, prompt)
    made_by = json.dumps([FORM, RULE, model_identity(base.name), base.dtype, base.quantization, max_new_tokens])
    folder = output.with_name(f"{output.name}.journal") / hashlib.sha256(made_by.encode()).hexdigest()[:12]
    journal = Journal(folder, shard, shards)
    lock_output(folder, "--output")
    said = journal.read()
    if not said and journal.has_older_form():
        log.info("The texts kept in %s do not say what they were made from: all are written anew.", folder.parent)
    images = _keyed(_named(metadata, images_dir), images_dir, prompter)
    own = images[shard::shards]
    waiting = [one for one in own if one.key not in said or said[one.key].fault]
    if waiting:
        device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        describer = Describer(load_llava(base, device), prompter, max_new_tokens)
        dataset = _Images(waiting, images_dir, prompter)
        loader = DataLoader(dataset, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is)
        _run(iter(loader), len(waiting), describer, journal.open(), batch_size)
        journal.close()
    with journal.turn():
        if journal.is_in(output, since=started):
            log.info("Another process has written %s.", output)
            return None
        return _finish(metadata, output, journal, images)


def _named(metadata: Path, folder: Path) -> list[Waiting]:
    """The images that wait for a description; that there is nothing to describe is found before a model is loaded."""
    images = list(waiting_images(metadata))
    if not images and not names_images(metadata):
        raise UserError(f'No image is named in {metadata}; an item names its own as {{"images": [{{"large": URL}}]}}.')
    if images and not any((folder / one.image).is_file() for one in images):
        raise UserError(f"None of the {len(images)} images to describe is in {folder}; fill it with `python -m crawl`.")
    return images


def _keyed(images: Sequence[Waiting], folder: Path, prompter: Prompter) -> list[_Keyed]:
    """Each image with the hash of its bytes and its prompt; threads read the files, and hashing leaves them free."""

    def hashed(image: Waiting) -> str:
        try:
            return file_hash(folder / image.image)
        except OSError:
            return "cannot be read"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = pool.map(hashed, images)
        return [
            _Keyed(image, hashlib.sha256(json.dumps([content, prompter.text(image.title)]).encode()).hexdigest())
            for image, content in zip(images, contents, strict=True)
        ]


def _run(seen: Iterator[Any], count: int, describer: Describer, journal: Journal, batch_size: int) -> None:
    bar = Progress(
        TextColumn("describing"), BarColumn(), MofNCompleteColumn(), TextColumn("images, left:"), TimeRemainingColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=count)
        while window := list(islice(seen, WINDOW * batch_size)):
            faults = [Said(one.key, one.waiting.image, fault=fault) for one, fault in window if isinstance(fault, str)]
            journal.add(*faults)
            bar.advance(task, len(faults))
            # alike in views and length, so that little is padded
            whole = sorted((one for one in window if isinstance(one[1], Seen)), key=lambda one: _cost(one[1]))
            for start in range(0, len(whole), batch_size):
                batch = whole[start : start + batch_size]
                texts = describer.describe([image for _, image in batch])
                journal.add(
                    *(Said(one.key, one.waiting.image, text) for (one, _), text in zip(batch, texts, strict=True))
                )
                bar.advance(task, len(batch))


def _finish(metadata: Path, output: Path, journal: Journal, images: Sequence[_Keyed]) -> Described | None:
    said = journal.read()
    open_images = sum(one.key not in said for one in images)
    if open_images:
        log.info("%d images are still with other processes; the last of them writes %s.", open_images, output)
        return None
    of_image = {one.waiting.image: said[one.key] for one in images}
    faults = {image: one.fault for image, one in of_image.items() if one.fault}
    left_out = output.with_name(f"{output.name}.left_out.jsonl")
    with writing(left_out) as file:
        file.writelines(json.dumps({"where": image, "reason": fault}) + "\n" for image, fault in faults.items())
    if images and len(faults) == len(images):
        reason, _ = Counter(faults.values()).most_common(1)[0]
        raise UserError(f"None of the {len(images)} images of {metadata} could be described ({reason}).")
    write_described(metadata, output, {image: one.text for image, one in of_image.items() if one.text})
    return Described(len(images) - len(faults), Counter(faults.values()), left_out)


class _Images(Dataset[tuple[_Keyed, Seen | str]]):
    """Each waiting image, with what the model is given of it or why that cannot be."""

    def __init__(self, waiting: Sequence[_Keyed], folder: Path, prompter: Prompter) -> None:
        self.waiting, self.folder, self.prompter = waiting, folder, prompter

    def __len__(self) -> int:
        return len(self.waiting)

    def __getitem__(self, index: int) -> tuple[_Keyed, Seen | str]:
        one = self.waiting[index]
        try:
            return one, self.prompter.see(one.waiting.title, open_image(self.folder / one.waiting.image))
        except BrokenImage as broken:
            return one, str(broken)


def _cost(seen: Seen) -> tuple[int, float]:
    """Views, and the aspect ratio, on which the number of visual tokens depends."""
    return len(seen.views), max(seen.height / seen.width, seen.width / seen.height)


def _as_it_is(one: Any) -> Any:
    return one
