"""A catalogue's CLS tokens before the projector, computed once an item and mapped into memory.

One folder for each identity (model, stage-1 adapter, way of cutting), named by its hash:

- `items.json`: the identity, the token's width, and the items in row order; new items are appended;
- `cls_tokens.bf16`: (rows, 5, width) bfloat16, 10 KB an item for LLaVA-v1.6; unused views are zero;
- `done-<shard>-of-<shards>.jsonl`: a line for each item, with its image's hash, written after its tokens.

A killed run therefore loses only its last batch, several processes can fill one store, and a changed image
is seen: its size and times are compared first, and its hash where they differ. The time of change (ctime) is among
them, since a copy can bear the other time of the file that it replaces.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lavic.catalogue.images import RULE, BrokenImage
from lavic.catalogue.items import Item
from lavic.errors import UserError
from lavic.files import file_hash, write_text
from lavic.files.json_entries import Entry, read_entries, read_json
from lavic.model.identity import model_identity

MAX_VIEWS = 5
CutImage = Callable[[Path], Tensor]  # -> (views, 3, side, side) uint8; raises BrokenImage
Embed = Callable[[Tensor], Tensor]  # (V, 3, side, side) uint8 -> (V, width)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A line of the journal: what a row's tokens were computed from. `views` is 0 for a broken image."""

    item: str
    row: int
    views: int
    size: int
    mtime_ns: int
    sha256: str
    time: float
    fault: str = ""
    ctime_ns: int = 0


def store_identity(model_name: str, adapter: Path | None, views: str) -> dict[str, str]:
    """What an item's tokens depend on beside its image.

    The model is known by its weights and by how it cuts and scales images (`lavic/model/identity.py`), an adapter by
    its weights and configuration; neither by its path.

    Raises:
        UserError: `adapter` is no adapter directory.
    """
    model = model_identity(model_name, ("config.json", "preprocessor_config.json", "processor_config.json"))
    if adapter is None:
        return {"model": model, "adapter": "none", "views": views, "decoding": str(RULE)}
    files = [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]
    for file in files:
        if not file.is_file():
            raise UserError(f"{adapter} is no adapter directory (no {file.name} in it); give stage 1's best adapter.")
    hashed = hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()
    return {"model": model, "adapter": hashed, "views": views, "decoding": str(RULE)}


class ItemStore:
    """Read access. It can be sent to loader workers: they map the same file again."""

    def __init__(self, folder: Path, width: int, rows: Mapping[str, int], views: Mapping[str, int]) -> None:
        self.folder = folder
        self.width = width
        self.items = list(views)
        self._rows = rows
        self._views = views
        self._tokens: Tensor | None = None

    @classmethod
    def open(cls, root: Path, identity: Mapping[str, str], items: Iterable[Item]) -> "ItemStore":
        """The store of that identity, once every given item with an image has fresh tokens in it.

        Raises:
            UserError: it is missing, or an item is, or an image has changed since.
        """
        folder = store_folder(root, identity)
        way_out = "run `python -m lavic embed` with this configuration"
        if not (folder / "items.json").is_file():
            raise UserError(f"There is no item store for this model and adapter in {root}; {way_out}.")
        manifest = read_json(folder / "items.json")
        rows = {item: row for row, item in enumerate(manifest["items"])}
        journal = _read_journal(folder)
        views: dict[str, int] = {}
        stale = []
        for item in items:
            entry = journal.get(rows.get(item.id, -1))
            if item.image is None:
                views[item.id] = 0
            elif entry is None or not _is_fresh(entry, item.image):
                stale.append(item.id)
            else:
                views[item.id] = entry.views
        if stale:
            raise UserError(
                f"The item store {folder} lacks {len(stale)} items or has them from older images "
                f"(first: {stale[0]}); {way_out}."
            )
        return cls(folder, manifest["width"], rows, views)

    def views(self, item: str) -> int:
        """Number of views of an item's image; 0 without a usable one, or for an unknown item."""
        return self._views.get(item, 0)

    def cls_tokens(self, items: Sequence[str]) -> Tensor:
        """The items' tokens in order, (sum of their views, width) bfloat16."""
        tokens = self._mapped()
        parts = [tokens[self._rows[item], : self._views[item]] for item in items if self.views(item)]
        return torch.cat(parts) if parts else torch.empty((0, self.width), dtype=torch.bfloat16)

    def first_tokens(self, items: Sequence[str]) -> Tensor:
        """The whole view's token of each item, all of which have an image: (items, width) bfloat16."""
        return self._mapped()[[self._rows[item] for item in items], 0]

    def _mapped(self) -> Tensor:
        if self._tokens is None:
            self._tokens = _map_tokens(self.folder, self.width, shared=False)
        return self._tokens

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tokens": None}


def store_folder(root: Path, identity: Mapping[str, str]) -> Path:
    """Where the store of an identity lies under `root`."""
    return root / hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:16]


def build_item_store(
    root: Path,
    identity: Mapping[str, str],
    items: Sequence[Item],
    cut: CutImage,
    embed: Embed,
    width: int,
    batch_size: int = 16,
    workers: int = 0,
    shard: int = 0,
    shards: int = 1,
) -> dict[str, str]:
    """Embeds what has no fresh tokens yet, of every `shards`-th row; returns broken items with their faults.

    Args:
        root: folder of the stores.
        identity: what the tokens depend on beside the images.
        items: the catalogue; those without an image get no tokens.
        cut: an image file's views; called in the loader's workers.
        embed: CLS tokens of views.
        width: of a CLS token.
        batch_size: images a batch.
        workers: processes that cut images.
        shard: this process's number, from 0.
        shards: how many processes fill the store.
    """
    folder = store_folder(root, identity)
    folder.mkdir(parents=True, exist_ok=True)
    rows = _allot_rows(folder, identity, items, width)
    journal = _read_journal(folder)
    faults: dict[str, str] = {}
    waiting: list[tuple[str, int, Path]] = []
    for item in items:
        if item.image is None or rows[item.id] % shards != shard:
            continue
        entry = journal.get(rows[item.id])
        if entry is None or not _is_fresh(entry, item.image):
            waiting.append((item.id, rows[item.id], item.image))
        elif entry.fault:
            faults[item.id] = entry.fault
    tokens = _map_tokens(folder, width, shared=True)
    loader: DataLoader[Any] = DataLoader(
        _Images(waiting, cut), batch_size=batch_size, num_workers=workers, collate_fn=_join
    )
    with (folder / f"done-{shard}-of-{shards}.jsonl").open("a", encoding="utf-8") as lines:
        lines.write("\n")  # ends the line that a killed run may have left half-written
        bar = Console(stderr=True)
        for batch, views in track(loader, f"Embedding {len(waiting)} items", console=bar, disable=not waiting):
            if len(views):
                embedded = iter(embed(views).to("cpu", torch.bfloat16))
                for entry in batch:
                    tokens[entry.row] = 0
                    for view in range(entry.views):
                        tokens[entry.row, view] = next(embedded)
            lines.write("".join(json.dumps(asdict(entry)) + "\n" for entry in batch))
            lines.flush()
            faults |= {entry.item: entry.fault for entry in batch if entry.fault}
    return faults


class _Images(Dataset[tuple[Embedded, Tensor | None]]):
    """Each waiting image's views, and the journal line that will stand for it."""

    def __init__(self, waiting: Sequence[tuple[str, int, Path]], cut: CutImage) -> None:
        self.waiting, self.cut = waiting, cut

    def __len__(self) -> int:
        return len(self.waiting)

    def __getitem__(self, index: int) -> tuple[Embedded, Tensor | None]:
        item, row, image = self.waiting[index]
        stat = image.stat()
        views, fault = None, ""
        try:
            views = self.cut(image)
        except BrokenImage as broken:
            fault = str(broken)
        count = 0 if views is None else len(views)
        state = (stat.st_size, stat.st_mtime_ns, file_hash(image))
        return Embedded(item, row, count, *state, time.time(), fault, stat.st_ctime_ns), views


def _join(batch: list[tuple[Embedded, Tensor | None]]) -> tuple[list[Embedded], Tensor]:
    views = [views for _, views in batch if views is not None]
    return [entry for entry, _ in batch], torch.cat(views) if views else torch.empty(0)


def _allot_rows(folder: Path, identity: Mapping[str, str], items: Sequence[Item], width: int) -> dict[str, int]:
    """Every item's row; known items keep theirs. All processes write the same, so none has to be first."""
    manifest = folder / "items.json"
    known = read_json(manifest)["items"] if manifest.is_file() else []
    ids = list(dict.fromkeys([*known, *(item.id for item in items)]))
    tokens = folder / "cls_tokens.bf16"
    tokens.touch()
    if tokens.stat().st_size < (size := len(ids) * MAX_VIEWS * width * 2):
        os.truncate(tokens, size)
    if ids != known:
        write_text(manifest, json.dumps({"identity": dict(identity), "width": width, "items": ids}))
    return {item: row for row, item in enumerate(ids)}


def _map_tokens(folder: Path, width: int, shared: bool) -> Tensor:
    """(rows, MAX_VIEWS, width) bfloat16; writes reach the file when `shared`."""
    path = folder / "cls_tokens.bf16"
    count = path.stat().st_size // 2
    flat = torch.from_file(str(path), shared=shared, size=count, dtype=torch.bfloat16)
    return flat.view(-1, MAX_VIEWS, width)


def _read_journal(folder: Path) -> dict[int, Embedded]:
    """The newest line of each row; a line that a killed run left half-written counts as not there."""
    newest: dict[int, Embedded] = {}
    for path in sorted(folder.glob("done-*.jsonl")):
        for line in read_entries(path):
            try:
                entry = Embedded(**line.value) if isinstance(line, Entry) else None
            except TypeError:
                continue
            if entry is None:
                continue
            if entry.row not in newest or newest[entry.row].time <= entry.time:
                newest[entry.row] = entry
    return newest


def _is_fresh(entry: Embedded, image: Path) -> bool:
    try:
        stat = image.stat()
        written = (entry.size, entry.mtime_ns, entry.ctime_ns)
        same = written == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return same or (entry.size == stat.st_size and entry.sha256 == file_hash(image))
    except OSError:
        return False
