"""Questions that stream: the questions, batches and written results of a table, on one and two processes (C3, C6)."""

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavic.catalogue.image_checks import ImageChecks
from lavic.retrieval.passages import Knowledge
from lavic.tasks.vqa.table import QuestionStream, load_questions
from tests.tasks.vqa.test_aqua import AQUA, assert_every_question_once, write_files
from tests.training.command_line import run

needs_aqua = pytest.mark.skipif(not AQUA.is_dir(), reason=f"no {AQUA}")


def folder_of(tmp_path: Path, form: str) -> tuple[Path, int]:
    """A file with good and bad entries of any form, and how many it has."""
    (tmp_path / "images").mkdir()
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        Image.new("RGB", (8, 6), "red").save(tmp_path / "images" / name)
    rows: list[Any] = [
        {
            "image": f"{i % 3}.jpg",
            "question": f"whât {i} 😀",
            "answer": f"a {i % 4}",
            "need_external_knowledge": i % 2 < 1,
        }
        for i in range(11)
    ]
    rows[2:2] = ["no object", {**rows[0], "answer": ""}, {**rows[0], "image": "gone.jpg"}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "[" + ", ".join(lines) + "]" if form == "list" else "\n".join([*lines, "{broken"]) + "\n"
    data = text.encode({"bom": "utf-8-sig", "utf-16": "utf-16"}.get(form, "utf-8"))
    path = tmp_path / ("q.json" if form == "list" else "q.jsonl")
    path.write_bytes(gzip.compress(data) if form == "gzip" else data)
    return path, len(rows) + (form != "list")


@pytest.mark.parametrize("form", ["lines", "list", "bom", "utf-16", "gzip"])
@pytest.mark.parametrize("mode", ["use", "filter", "ignore"])
def test_a_stream_is_the_table(form: str, mode: Any, tmp_path: Path) -> None:
    path, given = folder_of(tmp_path, form)
    (tmp_path / "known.csv").write_text("image_file,description\n0.jpg,known of it\n")
    knowledge = Knowledge(mode, tmp_path / "known.csv") if mode == "use" else Knowledge(mode)
    passages = knowledge.passages()
    loaded = []
    for streaming in (False, True, True):  # the last from the cache
        checks = ImageChecks(tmp_path / "images", tmp_path / "cache")
        loaded.append(load_questions(path, checks, knowledge, passages, "val", tmp_path / "cache", streaming))
    (table, population, left_out), *others = loaded
    assert population.given == given == len(table) + population.filtered + len(left_out)
    assert len(table) == (5 if mode == "filter" else 11)
    for stream, counted, listed in others:
        assert isinstance(stream, QuestionStream)
        assert (counted, listed) == (population, left_out)
        stream = pickle.loads(pickle.dumps(stream))
        assert [stream[i] for i in range(len(stream))] == [table[i] for i in range(len(table))]
        assert stream.letters().tolist() == table.letters().tolist()
        assert stream.image_numbers().tolist() == table.image_numbers().tolist()
        assert stream.content_hash() == table.content_hash()
        answers, which = stream.answers()
        assert [answers[i] for i in which] == [table[i].answer for i in range(len(table))]
    assert any(question.description for question in map(table.__getitem__, range(len(table)))) == (mode == "use")


@needs_aqua
def test_aqua_streams_as_it_is(tmp_path: Path) -> None:
    rows = json.loads((AQUA / "val.json").read_text(encoding="utf-8"))
    (tmp_path / "images").mkdir()
    image = Image.new("RGB", (8, 6), "red")
    for name in {row["image"] for row in rows}:
        image.save(tmp_path / "images" / name)
    knowledge = Knowledge("use", AQUA / "semart_val.csv")
    passages = knowledge.passages()
    checks = ImageChecks(tmp_path / "images", tmp_path / "cache")
    table, stream = (
        load_questions(AQUA / "val.json", checks, knowledge, passages, "val", tmp_path / "cache", streaming)[0]
        for streaming in (False, True)
    )
    assert len(stream) == len(table) == len(rows)
    assert all(stream[i] == table[i] for i in range(len(rows)))
    assert stream.content_hash() == table.content_hash()


@needs_aqua
@pytest.mark.slow
def test_a_test_that_streams_has_the_same_metrics(tiny: Path, tmp_path: Path) -> None:
    every = json.loads((AQUA / "val.json").read_text(encoding="utf-8"))
    images = sorted({row["image"] for row in every})[::150]
    rows = [row for row in every if row["image"] in images]
    options = [*write_files(tmp_path, rows, taught=8), f"--model.init_args.base.name={tiny}"]
    options.append(f"--data.init_args.cache_dir={tmp_path / 'cache'}")
    found = []
    for name, streaming, processes, workers in (("table", False, 1, 0), ("stream", True, 1, 2), ("two", True, 2, 0)):
        out = tmp_path / name
        more = [f"--data.init_args.streaming={str(streaming).lower()}", f"--data.init_args.num_workers={workers}"]
        run(["test", *options, *more, f"--trainer.default_root_dir={out}", f"--logs_dir={out / 'logs'}"], out,
            processes)  # fmt: skip
        results = out / "evaluation_results"
        assert_every_question_once(results, rows)
        found.append((results / "metrics.json").read_text())
    assert found[0] == found[1] == found[2]
