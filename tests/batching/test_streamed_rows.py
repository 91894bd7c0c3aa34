"""The index of what streams: its rows, its columns, and what they hold in memory."""

from pathlib import Path

import pyarrow as pa
import pytest

from lavic.batching.streamed_rows import PLACE, ROWS, StreamedRows, write_rows
from lavic.files.json_places import PlacedEntries

COUNT = 3 * ROWS + 5


@pytest.fixture
def rows(tmp_path: Path) -> StreamedRows:
    """Rows of 8 bytes of interest and 400 others."""
    (tmp_path / "entries.jsonl").write_text("{}\n")
    made = ({"text": "x" * 400, "start": number, "stop": number + 1} for number in range(COUNT))
    write_rows(tmp_path / "index.arrow", pa.schema([("text", pa.string()), *PLACE]), made)
    return StreamedRows(tmp_path / "index.arrow", PlacedEntries(tmp_path / "entries.jsonl", tmp_path))


def test_its_length_and_columns_are_what_was_written(rows: StreamedRows) -> None:
    assert len(rows) == COUNT
    assert rows.column("stop").to_pylist() == list(range(1, COUNT + 1))
    assert [len(chunk) for chunk in rows.chunks("text")] == [ROWS, ROWS, ROWS, 5]


def test_an_empty_index_has_no_rows(rows: StreamedRows, tmp_path: Path) -> None:
    write_rows(tmp_path / "empty.arrow", pa.schema(PLACE), [])
    assert len(StreamedRows(tmp_path / "empty.arrow", rows.entries)) == 0


def test_a_column_in_memory_is_that_column_alone(rows: StreamedRows) -> None:
    before = pa.total_allocated_bytes()
    column = rows.column("start")
    assert COUNT * 8 <= pa.total_allocated_bytes() - before < COUNT * 16
    assert len(column) == COUNT
