"""Instruction records, their images checked whole and their texts tokenised, as a memory-mapped Arrow table.

Made once for one state of records, images, tokenizer and settings, whose hash is its name. What cannot be used is left
out and listed beside it; records used and records listed are together those that were given.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lavic.catalogue.image_checks import ImageChecks, Verdict
from lavic.catalogue.records import Record, Unusable, read_records
from lavic.errors import UserError
from lavic.files import write_text
from lavic.files.json_entries import Entry, read_entries
from lavic.model.chat_text import ChatText
from lavic.model.image_entry import ImageReader

log = logging.getLogger(__name__)

FORM = 1  # of the table below; a new number makes older caches void
CHUNK = 1024  # records checked and tokenised at a time
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.string())),
        ("sizes", pa.list_(pa.int32())),  # width, height, width, height, ... in pixels
        ("image_tokens", pa.list_(pa.int32())),  # of each image
        ("question", pa.string()),  # the last, and its answer
        ("answer", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("runs", pa.list_(pa.int32())),  # of supervised tokens: start, stop, start, stop, ...
    ]
)


@dataclass(frozen=True)
class RecordSource:
    """Where records come from and what of them is used.

    Attributes:
        records: a file of instruction records.
        images_dir: folder of their images; None where no record has one.
        max_length: tokens of a record at most, image tokens included.
        max_samples: a random choice of that many records, by `seed`; None takes all.
        seed: of that choice.
    """

    records: Path
    images_dir: Path | None
    max_length: int
    max_samples: int | None
    seed: int


class RecordTable:
    """The usable records of one source, mapped into memory; a pickled one is only a path."""

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
        """One record: `input_ids` as an int32 array, `runs` and `sizes` as pairs."""
        row = {name: self.rows[name][index].as_py() for name in SCHEMA.names if name != "input_ids"}
        pairs = {name: list(zip(row[name][::2], row[name][1::2], strict=True)) for name in ("runs", "sizes")}
        return {**row, **pairs, "input_ids": self.rows["input_ids"][index].values.to_numpy()}

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of every record, (N,)."""
        return np.asarray(pc.list_value_length(self.rows["input_ids"]), dtype=np.int64)

    def target_lengths(self) -> npt.NDArray[np.int64]:
        """Supervised tokens of every record, (N,)."""
        ends = self.rows["runs"].combine_chunks()
        owners = np.asarray(pc.list_parent_indices(ends), dtype=np.int64)[::2]
        values = np.asarray(ends.flatten(), dtype=np.int64)
        counted = np.bincount(owners, weights=values[1::2] - values[::2], minlength=len(self))
        return counted.astype(np.int64)

    def kinds(self) -> npt.NDArray[np.int64]:
        """1 for records with images, 0 for text alone, (N,)."""
        return np.asarray(pc.greater(pc.list_value_length(self.rows["images"]), 0)).astype(np.int64)

    def content_hash(self) -> str:
        """Of every record's images and tokens, in order."""
        digest = hashlib.sha256(json.dumps(self.rows["images"].to_pylist()).encode())
        for name in ("input_ids", "runs"):
            digest.update(self.rows[name].combine_chunks().flatten().to_numpy().data)
        return digest.hexdigest()[:16]


def load_records(
    source: RecordSource, chat: ChatText, reader: ImageReader, cache_dir: Path
) -> tuple[RecordTable, list[Unusable]]:
    """The table of a source, made now or found in `cache_dir`, and what was left out of it.

    Raises:
        UserError: nothing usable is in it, or a path is wrong.
    """
    if not source.records.is_file():
        raise UserError(f"The records file {source.records} does not exist; give the path of instruction records.")
    if source.images_dir is not None and not source.images_dir.is_dir():
        raise UserError(f"The images folder {source.images_dir} does not exist; give another.")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The cache folder {cache_dir} cannot be made ({error.strerror}); give another by data.init_args.cache_dir."
        ) from None
    checks = ImageChecks(source.images_dir, cache_dir) if source.images_dir else None
    path = cache_dir / f"records-{_fingerprint(source, chat, reader, checks)}.arrow"
    listed = path.with_suffix(".left_out.jsonl")
    if not (path.exists() and listed.exists()):
        _build(source, chat, reader, checks, path, listed)
    left_out = [Unusable(**entry.value) for entry in read_entries(listed) if isinstance(entry, Entry)]
    table = RecordTable(path)
    if not len(table):
        reasons = ", ".join(f"{n} x {reason}" for reason, n in Counter(u.reason for u in left_out).most_common(3))
        raise UserError(
            f"No record of {source.records} can be used ({reasons or 'it is empty'}); check it and the images' folder."
        )
    return table, left_out


def _build(
    source: RecordSource, chat: ChatText, reader: ImageReader, checks: ImageChecks | None, path: Path, listed: Path
) -> None:
    read = list(read_records(source.records))
    left_out = [entry for entry in read if isinstance(entry, Unusable)]
    records = [entry for entry in read if isinstance(entry, Record)]
    if source.max_samples is not None:
        chosen = np.random.default_rng(source.seed).permutation(len(records))
        records = [records[i] for i in chosen]
    settled = Counter(change for record in records for change in record.changes)
    beside = path.with_suffix(f".{os.getpid()}.partial")
    kept = 0
    with pa.OSFile(str(beside), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for start in range(0, len(records), CHUNK):
            chunk = records[start : start + CHUNK]
            if source.max_samples is not None and kept >= source.max_samples:
                break
            rows = list(_usable(chunk, source, chat, reader, checks, left_out, settled))
            rows = rows if source.max_samples is None else rows[: source.max_samples - kept]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
            kept += len(rows)
    if checks is not None:
        checks.save()
    write_text(listed, "".join(json.dumps(asdict(entry)) + "\n" for entry in left_out))
    beside.replace(path)
    log.info("%s: %d records, %d left out", source.records, kept, len(left_out))
    for change, count in settled.items():
        log.info("%s: %d x %s", source.records, count, change)


def _usable(
    records: list[Record],
    source: RecordSource,
    chat: ChatText,
    reader: ImageReader,
    checks: ImageChecks | None,
    left_out: list[Unusable],
    settled: Counter[str],
) -> Iterator[dict[str, Any]]:
    """The rows of those whose images are whole and whose text fits; the others are added to `left_out`."""

    def check(name: str) -> Verdict:
        return "image missing" if checks is None else checks.check(name)

    names = sorted({name for record in records for name in record.images})
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
        verdicts = dict(zip(names, pool.map(check, names), strict=True))
    for record in records:
        found = [verdicts[name] for name in record.images]
        sizes = [size for size in found if not isinstance(size, str)]
        if len(sizes) < len(found):
            reason = next(f"{verdict}" for verdict in found if isinstance(verdict, str))
            left_out.append(Unusable(record.id, reason))
            continue
        counts = [reader.count(*size) for size in sizes]
        encoded = chat.encode(record.turns, counts, record.system, source.max_length)
        if isinstance(encoded, str):
            left_out.append(Unusable(record.id, encoded))
            continue
        settled["oldest pairs dropped for max_length"] += bool(encoded.dropped)
        settled["question cut for max_length"] += encoded.shortened
        yield {
            "id": record.id,
            "images": record.images,
            "sizes": [side for size in sizes for side in size],
            "image_tokens": counts,
            "question": record.turns[-2].text,
            "answer": record.turns[-1].text.strip(),
            "input_ids": encoded.input_ids,
            "runs": [end for run in encoded.spans for end in run],
        }


def _fingerprint(source: RecordSource, chat: ChatText, reader: ImageReader, checks: ImageChecks | None) -> str:
    stat = source.records.stat()
    parts = [
        FORM,
        {**asdict(source), "records": str(source.records.resolve()), "images_dir": str(source.images_dir)},
        [stat.st_size, stat.st_mtime_ns],
        checks.listing if checks else None,
        [chat.template.name, repr(chat.template), sorted(chat.eos_ids)],
        chat.tokenizer.backend_tokenizer.to_str(),
        asdict(reader.entry),
        reader.config.to_json_string(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
