"""Instruction records -> a table or a stream of the usable ones, in one pass over the file, record by record.

Made once for one state of records, images, tokenizer and settings, whose hash is its name. What cannot be used is left
out and listed beside it; records used and records listed are together those that were given.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np

from lavic.batching.streamed_rows import write_rows
from lavic.catalogue.image_checks import ImageChecks, Verdict
from lavic.catalogue.records import Record, Unusable, read_records
from lavic.errors import UserError
from lavic.files import write_text
from lavic.files.json_entries import read_json
from lavic.files.json_places import PlacedEntries
from lavic.model.chat_text import ChatText
from lavic.model.image_entry import ImageReader
from lavic.tasks.instruction.table import SCHEMA, STREAMED, RecordStream, RecordTable

log = logging.getLogger(__name__)

FORM = 2  # of the tables; a new number makes older caches void
CHUNK = 1024  # records checked at a time


@dataclass(frozen=True)
class RecordSource:
    """Where records come from and what of them is used.

    Attributes:
        records: a file of instruction records.
        images_dir: folder of their images; None where no record has one.
        max_length: tokens of a record at most, image tokens included.
        max_samples: a random choice of that many records, by `seed`; None takes all.
        seed: of that choice.
        streaming: whether texts are read and tokenised when they are asked for, instead of once.
    """

    records: Path
    images_dir: Path | None
    max_length: int
    max_samples: int | None
    seed: int
    streaming: bool = False


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
    told = path.with_suffix(".json")
    if not (path.exists() and told.exists()):
        _Build(source, chat, reader, checks).write(path, told)
    found = read_json(told)
    left_out = [Unusable(**one) for one in found["left_out"]]
    table = RecordTable(path, found["content"])
    if source.streaming:
        entries = PlacedEntries(source.records, cache_dir)
        table = RecordStream(path, found["content"], entries, chat, source.max_length)
    if not len(table):
        reasons = ", ".join(f"{n} x {reason}" for reason, n in Counter(u.reason for u in left_out).most_common(3))
        raise UserError(
            f"No record of {source.records} can be used ({reasons or 'it is empty'}); check it and the images' folder."
        )
    return table, left_out


class _Build:
    """One pass over a source, `CHUNK` records in memory, and what it finds on the way."""

    def __init__(self, source: RecordSource, chat: ChatText, reader: ImageReader, checks: ImageChecks | None) -> None:
        self.source, self.chat, self.reader, self.checks = source, chat, reader, checks
        self.unreadable: list[Unusable] = []
        self.unusable: list[Unusable] = []
        self.settled: Counter[str] = Counter()
        self.content = hashlib.sha256()

    def write(self, path: Path, told: Path) -> None:
        """The table, or the stream's index, and what is told of it beside it."""
        kept = write_rows(path, STREAMED if self.source.streaming else SCHEMA, self._rows())
        if self.checks is not None:
            self.checks.save()
        left_out = [asdict(entry) for entry in self.unreadable + self.unusable]
        write_text(told, json.dumps({"content": self.content.hexdigest()[:16], "left_out": left_out}))
        log.info("%s: %d records, %d left out", self.source.records, kept, len(left_out))
        for change, count in self.settled.items():
            log.info("%s: %d x %s", self.source.records, count, change)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the usable records; with `max_samples` of so many, by chance."""
        wanted = self.source.max_samples
        if wanted is None:
            yield from self._usable(self._readable())
            return
        count = sum(1 for _ in self._readable())
        order = np.random.default_rng(self.source.seed).permutation(count)
        while wanted and len(order):  # again for as many as turned out to be unusable
            chosen, order = order[:wanted], order[wanted:]
            for row in self._usable(compress(self._readable(), np.isin(np.arange(count), chosen))):
                wanted -= 1
                yield row

    def _readable(self) -> Iterator[Record]:
        """The records of the file, to its end; what is none is listed."""
        self.unreadable = []
        for found in read_records(self.source.records):
            if isinstance(found, Record):
                yield found
            else:
                self.unreadable.append(found)

    def _usable(self, records: Iterator[Record]) -> Iterator[dict[str, Any]]:
        """The rows of those whose images are whole and whose text fits; the others are listed."""
        while chunk := list(islice(records, CHUNK)):
            names = sorted({name for record in chunk for name in record.images})
            found = ["image missing"] * len(names) if self.checks is None else self.checks.check_all(names)
            verdicts = dict(zip(names, found, strict=True))
            for record in chunk:
                if isinstance(row := self._row(record, [verdicts[name] for name in record.images]), str):
                    self.unusable.append(Unusable(record.id, row))
                else:
                    yield row

    def _row(self, record: Record, verdicts: list[Verdict]) -> dict[str, Any] | str:
        """A record's row, or why it cannot be used."""
        sizes = []
        for verdict in verdicts:
            if isinstance(verdict, str):
                return verdict
            sizes.append(verdict)
        counts = [self.reader.count(*size) for size in sizes]
        encoded = self.chat.encode(record.turns, counts, record.system, self.source.max_length)
        if isinstance(encoded, str):
            return encoded
        self.settled.update(record.changes)
        self.settled["oldest pairs dropped for max_length"] += bool(encoded.dropped)
        self.settled["question cut for max_length"] += encoded.shortened
        ids = np.array(encoded.input_ids, dtype=np.int32)
        runs = np.array(encoded.spans, dtype=np.int32).reshape(-1)
        self.content.update(json.dumps(record.images).encode() + ids.tobytes() + runs.tobytes())
        start, stop = record.place
        return {
            "id": record.id,
            "images": record.images,
            "sizes": [side for size in sizes for side in size],
            "image_tokens": counts,
            "tokens": len(ids),
            "targets": sum(stop - start for start, stop in encoded.spans),
            "question": record.turns[-2].text,
            "answer": record.turns[-1].text.strip(),
            "input_ids": ids,
            "runs": runs,
            "start": start,
            "stop": stop,
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
