"""Described images, checked whole and tokenised, as a memory-mapped Arrow table.

The first time, every image is decoded and every text tokenised; what cannot be used is left out and listed. Later runs
only compare the files' sizes and times (`lavic/batching/cached_table.py`) and map the finished table into memory, which
all loader workers share.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from transformers import LlavaNextProcessor

from lavic.batching.cached_table import TableBuild, cached_table, file_state
from lavic.catalogue.descriptions import DescribedImage, read_described_images
from lavic.catalogue.image_checks import ImageChecks
from lavic.errors import UserError
from lavic.files.rejected import Rejected, reasons_text
from lavic.model.text import TEMPLATES, encode_distillation
from lavic.model.views import Views, count_views

log = logging.getLogger(__name__)

CHUNK = 1024  # entries checked and tokenised at a time
TRIED = 64  # images decoded to say how long all will take
SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("title", pa.string()),
        ("image", pa.string()),
        ("description", pa.string()),
        ("views", pa.int32()),
        ("input_ids", pa.list_(pa.int32())),
        ("target_start", pa.int32()),
    ]
)


@dataclass(frozen=True)
class SampleSource:
    """Where samples come from and what they depend on.

    Attributes:
        metadata: an item2meta file, `.json` or `.jsonl`.
        images_dir: folder of its images.
        views: how images are cut, `five` or `anyres`.
        max_length: tokens of a sample at most, prompt and target together.
        max_samples: a random choice of that many samples, by `seed`; None takes all.
        seed: of that choice.
    """

    metadata: Path
    images_dir: Path
    views: Views
    max_length: int
    max_samples: int | None
    seed: int


class SampleTable:
    """The usable samples of one source, mapped into memory; a pickled one is only a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: pa.Table | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_rows": None}

    @property
    def rows(self) -> pa.Table:
        """Columns as in `SCHEMA`."""
        if self._rows is None:
            with pa.memory_map(str(self.path)) as file:
                self._rows = pa.ipc.open_file(file).read_all()
        return self._rows

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def row(self, index: int) -> dict[str, Any]:
        """One sample; `input_ids` is an int32 array that lies in the mapped file."""
        row = {name: self.rows[name][index].as_py() for name in SCHEMA.names if name != "input_ids"}
        return {**row, "input_ids": self.rows["input_ids"][index].values.to_numpy()}

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of every sample, prompt and target, (N,)."""
        return np.asarray(pc.list_value_length(self.rows["input_ids"]), dtype=np.int64)

    def target_lengths(self) -> npt.NDArray[np.int64]:
        """Supervised tokens of every sample, its EOS included, (N,)."""
        return self.lengths() - np.asarray(self.rows["target_start"], dtype=np.int64)

    def content_hash(self) -> str:
        """Of every sample's image and tokens, in order."""
        digest = hashlib.sha256()
        digest.update("\0".join(self.column("image")).encode())
        tokens = self.rows["input_ids"].combine_chunks()
        digest.update(tokens.flatten().to_numpy().data)  # 80,000 samples: 80 MB, a tenth of a second
        return digest.hexdigest()[:16]

    def column(self, name: str) -> list[Any]:
        """One column as Python values."""
        return list(self.rows[name].to_pylist())


def load_samples(
    source: SampleSource,
    processor: LlavaNextProcessor,
    cache_dir: Path,
    strict: bool,
    checks_of: Callable[[Path, Path], ImageChecks] = ImageChecks,
) -> tuple[SampleTable, list[Rejected]]:
    """The table of a source, made now or found in `cache_dir`, and what was left out of it.

    Args:
        source: where the samples come from.
        processor: of the checkpoint.
        cache_dir: of tables and of verdicts on images.
        strict: whether an entry that would be left out is an error.
        checks_of: gives the verdicts on a folder's images, for sources that may share one.

    Raises:
        UserError: nothing usable is in it, or, if `strict`, the first entry that would be left out.
    """
    if not source.metadata.is_file():
        raise UserError(f"The metadata file {source.metadata} does not exist; give the path of an item2meta file.")
    if not source.images_dir.is_dir():
        raise UserError(
            f"The images folder {source.images_dir} does not exist; fill it with `python -m crawl` or give another."
        )
    checks = checks_of(source.images_dir, cache_dir)
    key = [
        {**asdict(source), "metadata": file_state(source.metadata), "images_dir": str(source.images_dir.resolve())},
        TEMPLATES["distillation"],
        processor.tokenizer.backend_tokenizer.to_str(),
        processor.image_processor.image_grid_pinpoints,
    ]
    path, rejected, _ = cached_table(
        cache_dir, "samples", key, SCHEMA, checks, lambda build: _rows(source, processor, checks, build)
    )
    table = SampleTable(path)
    if strict and rejected:
        first = rejected[0]
        raise UserError(
            f"{first.where} in {source.metadata} cannot be used ({first.reason}); mend it, or set strict to false."
        )
    if not len(table):
        raise UserError(
            f"No usable sample is in {source.metadata} with the images of {source.images_dir}"
            f" ({reasons_text(rejected, 3) or 'it is empty'}); check both paths, or fill the folder with"
            " `python -m crawl`."
        )
    return table, rejected


def _rows(
    source: SampleSource, processor: LlavaNextProcessor, checks: ImageChecks, build: TableBuild
) -> Iterator[dict[str, Any]]:
    """The rows of the usable samples; with `max_samples` of so many, by chance."""
    entries = list(read_described_images(source.metadata))
    build.rejected += [entry for entry in entries if isinstance(entry, Rejected)]
    described = [entry for entry in entries if isinstance(entry, DescribedImage)]
    if source.max_samples is not None:
        order = np.random.default_rng(source.seed).permutation(len(described))
        described = [described[i] for i in order]
    _say_how_long(described, source, checks)
    starts = range(0, len(described), CHUNK)
    bar = Console(stderr=True, markup=False)
    name = f"Checking the images of {escape(source.metadata.name)}"
    kept = 0
    for start in track(starts, name, console=bar, disable=len(starts) < 2):
        if source.max_samples is not None and kept >= source.max_samples:
            break
        rows = list(_usable(described[start : start + CHUNK], source, processor, build))
        rows = rows if source.max_samples is None else rows[: source.max_samples - kept]
        yield from rows
        kept += len(rows)


def _say_how_long(described: list[DescribedImage], source: SampleSource, checks: ImageChecks) -> None:
    """Says what checking will take, where it is worth a word: it is done once, and not for what the crawler stored."""
    undecided = checks.undecided(d.image for d in described[: source.max_samples])
    if len(undecided) <= CHUNK:
        return
    started = time.perf_counter()
    checks.check_all(undecided[:TRIED])
    seconds = (time.perf_counter() - started) / TRIED * len(undecided)
    log.info(
        "%d images of %s were not stored by the crawler, and are decoded once to see that they are whole: about %s.",
        len(undecided), source.images_dir, f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min",
    )  # fmt: skip


def _usable(
    described: list[DescribedImage], source: SampleSource, processor: LlavaNextProcessor, build: TableBuild
) -> Iterator[dict[str, Any]]:
    """The rows of those whose image is whole and whose text fits; the others are rejected."""
    whole = []
    for entry, found in zip(described, build.check_all([d.image for d in described]), strict=True):
        if isinstance(found, str):
            build.rejected.append(Rejected(entry.image, found))
        else:
            whole.append((entry, count_views(processor.image_processor, *found)))
    encoded = encode_distillation(
        processor.tokenizer,
        [entry.title for entry, _ in whole],
        [entry.description for entry, _ in whole],
        [views for _, views in whole],
        source.max_length,
    )
    for (entry, views), tokens in zip(whole, encoded, strict=True):
        if tokens is None or tokens.target_start >= len(tokens.input_ids) - 1:
            build.rejected.append(
                Rejected(entry.image, "too long for max_length" if tokens is None else "no description")
            )
        else:
            yield {
                "item": entry.item, "title": entry.title, "image": entry.image, "description": entry.description,
                "views": views, "input_ids": tokens.input_ids, "target_start": tokens.target_start,
            }  # fmt: skip
