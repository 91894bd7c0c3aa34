"""Usable instruction records on disk: a table of their tokens, or a stream that tokenises them when they are asked for.

A table is mapped into memory. A stream holds how many tokens a record has and where it stands in its file, and reads
it again whenever it is asked for; what it gives is the same.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lavic.batching.step_plan import Lengths
from lavic.batching.streamed_rows import PLACE, StreamedRows
from lavic.catalogue.records import parse_record
from lavic.files.json_places import PlacedEntries
from lavic.model.chat_text import ChatText

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


def _pairs(flat: list[int]) -> list[tuple[int, int]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
