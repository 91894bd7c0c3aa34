"""`python -m lavic embed`: fills the item store with every catalogue image's CLS tokens.

It can be stopped and started again at any time. `torchrun --nproc-per-node N -m lavic embed ...` shares the work
between N devices.
"""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavic.catalogue.images import open_image
from lavic.catalogue.items import read_items
from lavic.commands.flags import ABOUT, RECOMMENDATION, add_embed_options
from lavic.commands.options import read_task
from lavic.errors import UserError
from lavic.files.launched import this_process
from lavic.model.adapters.directory import load_adapter
from lavic.model.loading import load_llava
from lavic.model.parts import unwrap
from lavic.model.processor import load_processor
from lavic.model.views import cut_views
from lavic.model.visual_tokens import Normalise, cls_tokens
from lavic.ranges import check_ranges
from lavic.tasks.recommendation.item_store import build_item_store, store_folder, store_identity
from lavic.training.run_folder import lock_output

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """The command line: stage 2's YAML file, and how many images go through the model at a time."""
    task, data, options = read_task(argv, "python -m lavic embed", ABOUT["embed"], add_embed_options, RECOMMENDATION)
    check_ranges(batch_size=options.batch_size)
    shard, shards, local = this_process()
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")

    items = list(read_items(data.metadata, data.images_dirs).values())
    imaged = sum(item.image is not None for item in items)
    if not imaged:
        raise UserError(
            f"None of the {len(items)} items has an image in {', '.join(map(str, data.images_dirs)) or 'no folder'}; "
            "fill it with `python -m crawl`, or give other data.init_args.images_dirs."
        )
    processor = load_processor(data.model_name, data.views)
    identity = store_identity(data.model_name, task.distilled, data.views)
    task.check_files()
    folder = store_folder(data.item_store, identity)
    folder.mkdir(parents=True, exist_ok=True)
    lock_output(folder, "--data.init_args.item_store")  # rows are allotted by what the store holds
    seen = (
        f"by stage 1's adapter {task.distilled}" if task.distilled else "untrained (model.init_args.distilled is null)"
    )
    log.info("Vision: %s.", seen)
    llava = load_llava(task.base, device)
    if task.distilled is not None:
        llava = unwrap(
            load_adapter(llava, task.distilled, trainable=False, task="distillation", any_base=task.base.any_base)
        )
    normalise = Normalise(processor.image_processor).to(device)

    @torch.inference_mode()
    def embed(views: Tensor) -> Tensor:
        return cls_tokens(llava, normalise(views.to(device), llava.dtype))

    started = time.perf_counter()
    faults = build_item_store(
        data.item_store,
        identity,
        items,
        partial(_cut, processor.image_processor),
        embed,
        width=llava.config.vision_config.hidden_size,
        batch_size=options.batch_size,
        workers=data.num_workers,
        shard=shard,
        shards=shards,
    )
    if shards == 1 and len(faults) == imaged:
        raise UserError(f"None of the {imaged} images could be embedded (first: {next(iter(faults.values()))}).")
    log.info(
        "%d items in %s after %.1f s: %d without an image, %d of this process's with a broken one%s",
        len(items),
        folder,
        time.perf_counter() - started,
        len(items) - imaged,
        len(faults),
        "".join(f"; {item}: {fault}" for item, fault in list(faults.items())[:3]),
    )
    return 0


def _cut(image_processor: Any, image: Path) -> Tensor:
    return cut_views(image_processor, open_image(image))
