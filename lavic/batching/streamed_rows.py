"""Rows of a table on disk, written in batches of one size, and read a batch at a time where none may stay in memory.

What streams is an index of a JSON file's usable entries: where each stands, how long it is, and what else a plan of
batches needs. The entries themselves are read and tokenised when they are asked for, so that the same plan serves
streaming and tables: an epoch is shuffled as a whole by the seed, processes and workers share it out, and a resumed run
goes on with the very next sample. Memory holds some bytes a sample, whatever a sample's size.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lavic.files.json_places import PlacedEntries

ROWS = 1024  # of a batch
PLACE = [pa.field("start", pa.int64()), pa.field("stop", pa.int64())]  # the columns of an entry's place


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Writes an Arrow file beside `path`, gives it that name when it is whole, and returns how many rows it has."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    iterator, count = iter(rows), 0
    with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while batch := list(islice(iterator, ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
            count += len(batch)
    beside.replace(path)
    return count


class StreamedRows:
    """An index's rows, each with its entry; a pickled one is only paths.

    Args:
        index: an Arrow file of `write_rows`, with the columns of `PLACE` among others.
        entries: the JSON file that it is of.
    """

    def __init__(self, index: Path, entries: PlacedEntries) -> None:
        self.index, self.entries = index, entries
        self._reader: pa.ipc.RecordBatchFileReader | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    def __len__(self) -> int:
        with pa.OSFile(str(self.index)) as file:
            reader = pa.ipc.open_file(file)
            last = reader.num_record_batches - 1
            return last * ROWS + reader.get_batch(last).num_rows if last >= 0 else 0

    def row(self, number: int) -> tuple[dict[str, Any], Any]:
        """A row's cells by column, and its entry's value. Raises UserError where the JSON file has changed."""
        if self._reader is None:
            self._reader = pa.ipc.open_file(pa.OSFile(str(self.index)))  # mapped, its pages would count as memory
        batch, place = divmod(int(number), ROWS)
        [cells] = self._reader.get_batch(batch).slice(place, 1).to_pylist()
        return cells, self.entries.read(cells["start"], cells["stop"])

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, copied: what is read of a batch holds all of its columns in memory."""
        copies = (pa.concat_arrays([chunk, chunk[:0]]) for chunk in self.chunks(name))
        return pa.chunked_array(copies, self._schema().field(name).type)

    def chunks(self, name: str) -> Iterator[pa.Array]:
        """One column, a batch at a time."""
        options = pa.ipc.IpcReadOptions(included_fields=[self._schema().get_field_index(name)])
        with pa.OSFile(str(self.index)) as file:
            reader = pa.ipc.open_file(file, options=options)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)[name]

    def _schema(self) -> pa.Schema:
        with pa.OSFile(str(self.index)) as file:
            return pa.ipc.open_file(file).schema


def numbered(chunks: Iterable[pa.Array]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The different texts of a column in the order in which they appear, and which of them each row has, (N,)."""
    texts: dict[str, int] = {}
    numbers = [np.empty(0, dtype=np.int32)]
    for chunk in chunks:
        found = chunk.dictionary_encode()
        own = np.array([texts.setdefault(text, len(texts)) for text in found.dictionary.to_pylist()], dtype=np.int32)
        numbers.append(own[found.indices.to_numpy()])
    return list(texts), np.concatenate(numbers)
