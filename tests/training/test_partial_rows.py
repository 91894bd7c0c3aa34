"""Answers on disk as they come: nothing given is lost, and only a whole result takes the place of a whole one."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavic.training.partial_rows import PartialRows


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_unfinished_result_leaves_the_whole_one_as_it_was(tmp_path: Path) -> None:
    whole = tmp_path / "predictions.jsonl"
    whole.write_text('{"id": "old"}\n')
    rows = PartialRows(whole)
    rows.add([{"id": 1}, {"id": "half \ud83d emoji"}])
    assert lines(whole) == [{"id": "old"}]
    assert lines(rows.path)[0] == {"id": 1}
    rows.complete()
    assert lines(whole)[0] == {"id": 1}
    assert rows.files() == []


def test_rows_that_cannot_be_written_leave_those_before(tmp_path: Path) -> None:
    rows = PartialRows(tmp_path / "predictions.jsonl")
    rows.add([{"id": 1}])
    with pytest.raises(TypeError):
        rows.add([{"id": 2}, {"id": object()}])
    assert lines(rows.path)[0] == {"id": 1}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 2)])
def test_another_number_of_processes_takes_over(before: int, after: int, tmp_path: Path) -> None:
    whole = tmp_path / "predictions.jsonl"
    (tmp_path / "predictions.7.jsonl").write_text('{"id": "older"}\n')
    for rank in range(before):
        PartialRows(whole, rank, before).add([{"id": f"first {rank}"}])
    first = PartialRows(whole, 0, before)
    first.path.write_text(first.path.read_text() + '{"id": "cut')
    PartialRows(whole, 0, after).go_on()
    for rank in range(after):
        PartialRows(whole, rank, after).add([{"id": f"second {rank}"}])
    PartialRows(whole, 0, after).complete()
    found = [row["id"] for path in tmp_path.iterdir() for row in lines(path)]
    assert sorted(found) == sorted([f"first {r}" for r in range(before)] + [f"second {r}" for r in range(after)])


def test_a_whole_result_is_gone_on_with_where_nothing_newer_was_begun(tmp_path: Path) -> None:
    whole = tmp_path / "predictions.jsonl"
    whole.write_text('{"id": "whole"}\n')
    rows = PartialRows(whole)
    rows.go_on()
    assert lines(rows.path) == [{"id": "whole"}]
    whole.write_text('{"id": "older"}\n')
    rows.go_on()
    assert lines(rows.path) == [{"id": "whole"}]
    rows.discard()
    assert lines(whole) == [{"id": "older"}]
