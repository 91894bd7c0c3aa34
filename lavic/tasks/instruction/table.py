"""Usable instruction records on disk: a table of their tokens, or a stream that tokenises them when they are asked for.

Made in one pass over the file, record by record; what cannot be used is left out and listed, and records used and
records listed are together those that were given. A table is mapped into memory. A stream holds how many tokens a
record has and where it stands in its file, and reads it again whenever it is asked for; what it gives is the same.
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
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lavic.batching.cached_table import TableBuild, cached_table, file_state
from lavic.batching.step_plan import Lengths
from lavic.batching.streamed_rows import PLACE, StreamedRows
from lavic.catalogue.image_checks import ImageChecks, Verdict
from lavic.catalogue.records import Record, parse_record, read_records
from lavic.errors import UserError
from lavic.files.json_places import PlacedEntries
from lavic.files.rejected import Rejected, reasons_text
from lavic.model.chat_text import ChatText
from lavic.model.image_entry import ImageReader

log = logging.getLogger(__name__)

CHUNK = 1024  # records checked at a time
TEXT_ALONE = "text alone, which no trained part reads"

SHARED = [
    pa.field("id", pa.string()),
    pa.field("images", pa.list_(pa.string())),
    pa.field("sizes", pa.list_(pa.int32())),  # width, height, width, height, ... in pixels
    pa.field("image_tokens", pa.list_(pa.int32())),  # of each image
    pa.field("tokens", pa.int32()),
    pa.field("targets", pa.int32()),  # supervised tokens
]
SCHEMA = pa.schema(
    [
        *SHARED,
        ("question", pa.string()),  # the last, and its answer
        ("answer", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("runs", pa.list_(pa.int32())),  # of supervised tokens: start, stop, start, stop, ...
    ]
)
STREAMED = pa.schema([*SHARED, *PLACE])


class RecordTable:
    """The usable records of one source, mapped into memory; a pickled one is only a path.

    Args:
        path: an Arrow file with the columns of `SCHEMA`.
        content: a hash of every record's images and tokens, in order.
    """

    def __init__(self, path: Path, content: str) -> None:
        self.path, self.content = path, content
        self._rows: pa.Table | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}

    def column(self, name: str) -> pa.ChunkedArray:
        """One of the columns of `SHARED`."""
        return self._mapped()[name]

    def __len__(self) -> int:
        return len(self.column("tokens"))

    def row(self, index: int) -> dict[str, Any]:
        """One record: `input_ids` as an int32 array, `runs` and `sizes` as pairs."""
        rows = self._mapped()
        row = {name: rows[name][index].as_py() for name in SCHEMA.names if name != "input_ids"}
        pairs = {name: _pairs(row[name]) for name in ("runs", "sizes")}
        return {**row, **pairs, "input_ids": rows["input_ids"][index].values.to_numpy()}

    def lengths(self) -> Lengths:
        """Tokens of every record, (N,)."""
        return np.asarray(self.column("tokens"), dtype=np.int32)

    def target_lengths(self) -> Lengths:
        """Supervised tokens of every record, (N,)."""
        return np.asarray(self.column("targets"), dtype=np.int32)

    def image_counts(self) -> npt.NDArray[np.int64]:
        """Images of every record, (N,)."""
        return np.asarray(pc.list_value_length(self.column("image_tokens")), dtype=np.int64)

    def kinds(self) -> Lengths:
        """1 for records with images, 0 for text alone, (N,)."""
        return (self.image_counts() > 0).astype(np.int8)

    def image_sets(self) -> npt.NDArray[np.int64]:
        """A number for the images of every record, the same where the images are, (N,)."""
        joined = pc.binary_join(self.column("images"), "\0")
        return np.asarray(joined.combine_chunks().dictionary_encode().indices, dtype=np.int64)

    def _mapped(self) -> pa.Table:
        if self._rows is None:
            with pa.memory_map(str(self.path)) as file:
                self._rows = pa.ipc.open_file(file).read_all()
        return self._rows


class RecordStream(RecordTable):
    """The usable records of one source, each read from its file and tokenised when it is asked for.

    Args:
        path: an Arrow file with the columns of `STREAMED`.
        content: as of a table.
        entries: the file of records.
        chat: tokenises.
        max_length: tokens of a record at most.
    """

    def __init__(self, path: Path, content: str, entries: PlacedEntries, chat: ChatText, max_length: int) -> None:
        super().__init__(path, content)
        self.streamed, self.chat, self.max_length = StreamedRows(path, entries), chat, max_length

    def column(self, name: str) -> pa.ChunkedArray:
        """One of the columns of `SHARED`."""
        return self.streamed.column(name)

    def __len__(self) -> int:
        return len(self.streamed)

    def row(self, index: int) -> dict[str, Any]:
        """As of a table."""
        cells, value = self.streamed.row(index)
        record = parse_record(value, cells["id"])
        encoded = self.chat.encode(record.turns, cells["image_tokens"], record.system, self.max_length)
        assert not isinstance(encoded, str), encoded
        shared = {field.name: cells[field.name] for field in SHARED}
        texts = {"question": record.turns[-2].text, "answer": record.turns[-1].text.strip()}
        tokens = {"input_ids": np.array(encoded.input_ids, dtype=np.int32), "runs": encoded.spans}
        return {**shared, **texts, **tokens, "sizes": _pairs(cells["sizes"])}


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
        with_images: whether text alone is left out, which has no gradient where no part that reads it is trained.
    """

    records: Path
    images_dir: Path | None
    max_length: int
    max_samples: int | None
    seed: int
    streaming: bool = False
    with_images: bool = False


def load_records(
    source: RecordSource, chat: ChatText, reader: ImageReader, cache_dir: Path
) -> tuple[RecordTable, list[Rejected]]:
    """The table of a source, made now or found in `cache_dir`, and what was left out of it.

    Raises:
        UserError: nothing usable is in it, or a path is wrong.
    """
    if not source.records.is_file():
        raise UserError(f"The records file {source.records} does not exist; give the path of instruction records.")
    if source.images_dir is not None and not source.images_dir.is_dir():
        raise UserError(f"The images folder {source.images_dir} does not exist; give another.")
    images_dir = source.images_dir.resolve() if source.images_dir else None
    key = [
        {**asdict(source), "records": file_state(source.records), "images_dir": str(images_dir)},
        [chat.template.name, repr(chat.template), sorted(chat.eos_ids)],
        chat.tokenizer.backend_tokenizer.to_str(),
        asdict(reader.entry),
        reader.config.to_json_string(),
    ]
    checks = ImageChecks(source.images_dir, cache_dir) if source.images_dir else None
    schema = STREAMED if source.streaming else SCHEMA
    path, rejected, facts = cached_table(
        cache_dir, "records", key, schema, checks, lambda build: _Pass(source, chat, reader, build).rows()
    )
    table = RecordTable(path, facts["content"])
    if source.streaming:
        entries = PlacedEntries(source.records, cache_dir)
        table = RecordStream(path, facts["content"], entries, chat, source.max_length)
    if not len(table):
        why = reasons_text(rejected, 3) or "it is empty"
        raise UserError(f"No record of {source.records} can be used ({why}); check it and the images' folder.")
    return table, rejected


class _Pass:
    """One pass over a source, `CHUNK` records in memory, and what it finds on the way."""

    def __init__(self, source: RecordSource, chat: ChatText, reader: ImageReader, build: TableBuild) -> None:
        self.source, self.chat, self.reader, self.build = source, chat, reader, build
        self.unreadable: list[Rejected] = []
        self.unusable: list[Rejected] = []
        self.settled: Counter[str] = Counter()
        self.content = hashlib.sha256()

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the usable records; then what was found is noted and said."""
        yield from self._chosen()
        self.build.rejected += self.unreadable + self.unusable
        self.build.facts["content"] = self.content.hexdigest()[:16]
        for change, count in self.settled.items():
            log.info("%s: %d x %s", self.source.records, count, change)

    def _chosen(self) -> Iterator[dict[str, Any]]:
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
            verdicts = dict(zip(names, self.build.check_all(names), strict=True))
            for record in chunk:
                if isinstance(row := self._row(record, [verdicts[name] for name in record.images]), str):
                    self.unusable.append(Rejected(record.id, row))
                else:
                    yield row

    def _row(self, record: Record, verdicts: list[Verdict]) -> dict[str, Any] | str:
        """A record's row, or why it cannot be used."""
        if self.source.with_images and not record.images:
            return TEXT_ALONE
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


def _pairs(flat: list[int]) -> list[tuple[int, int]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
