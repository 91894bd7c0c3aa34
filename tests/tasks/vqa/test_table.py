"""Questions from files of any shape: each asked once or listed, in constant memory, with what is known from outside."""

import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavic.catalogue.image_checks import ImageChecks
from lavic.errors import UserError
from lavic.retrieval.passages import Knowledge
from lavic.tasks.vqa.table import QuestionTable, load_questions

AQUA = Path(__file__).parents[3].parent / "shared" / "systems" / "data" / "aqua"


def entry(number: int, needs: bool = False) -> dict[str, Any]:
    return {
        "image": f"{number % 3}.jpg",
        "question": f"q {number}",
        "answer": f"a {number}",
        "need_external_knowledge": needs,
    }


def images(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    image = Image.new("RGB", (8, 6), "red")
    for name in names:
        image.save(folder / name)
    return folder


def read(tmp_path: Path, data: Path, knowledge: Knowledge, folder: Path) -> tuple[Any, Any, QuestionTable]:
    checks = ImageChecks(folder, tmp_path / "cache")
    table, population, left_out = load_questions(
        data, checks, knowledge, knowledge.passages(), "val", tmp_path / "cache"
    )
    return population, left_out, table


@pytest.mark.parametrize("form", ["json", "jsonl", "json.gz", "jsonl.gz"])
def test_every_form_gives_the_same_table(form: str, tmp_path: Path) -> None:
    entries = [entry(i, needs=i % 2 == 1) for i in range(9)]
    text = "\n".join(map(json.dumps, entries)) if "jsonl" in form else json.dumps(entries, indent=1)
    data = tmp_path / f"val.{form}"
    data.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    population, left_out, table = read(
        tmp_path, data, Knowledge("ignore"), images(tmp_path / "i", ["0.jpg", "1.jpg", "2.jpg"])
    )
    assert (population.given, population.visual, population.knowledge, left_out) == (9, 5, 4, [])
    assert [table[i].question for i in range(len(table))] == [e["question"] for e in entries]
    assert pickle.loads(pickle.dumps(table))[8].answer == "a 8"


def test_what_cannot_be_asked_is_listed_with_its_place(tmp_path: Path) -> None:
    lines = [
        json.dumps(entry(0)),
        "{not json",
        json.dumps({**entry(1), "answer": ""}),
        json.dumps({**entry(1), "image": "../1.jpg"}),
        json.dumps({**entry(1), "image": "missing.jpg"}),
        json.dumps({**entry(1), "image": "broken.jpg"}),
        json.dumps({**entry(1), "need_external_knowledge": "yes"}),
        json.dumps({"image": "1.jpg", "question": "q", "answer": "no flag"}),
    ]
    data = tmp_path / "val.jsonl"
    data.write_text("\n".join(lines))
    folder = images(tmp_path / "i", ["0.jpg", "1.jpg"])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    population, left_out, table = read(tmp_path, data, Knowledge("ignore"), folder)
    assert population.given == 8
    assert len(left_out) + len(table) == 8
    assert [table[i].sample_id for i in range(2)] == [0, 7]
    assert {one.where.split(": ")[1]: one.reason for one in left_out}["line 5"] == "image missing"
    assert [one.reason for one in left_out][3:] == [
        "image missing",
        "image broken",
        "need_external_knowledge is neither true nor false",
    ]
    data.write_text("\n".join(lines[1:5]))
    with pytest.raises(UserError, match=r"No question of .* can be asked"):
        read(tmp_path, data, Knowledge("ignore"), folder)


@pytest.mark.skipif(not AQUA.is_dir(), reason=f"no {AQUA}")
def test_c4_aqua_with_its_knowledge_table(tmp_path: Path) -> None:
    rows = json.loads((AQUA / "val.json").read_text(encoding="utf-8"))
    folder = images(tmp_path / "i", sorted({row["image"] for row in rows}))
    use = Knowledge("use", AQUA / "semart_val.csv")
    population, left_out, table = read(tmp_path, AQUA / "val.json", use, folder)
    assert (population.given, population.visual, population.knowledge, population.described) == (5124, 1507, 3617, 3617)
    assert not left_out
    for i, row in enumerate(rows):
        asked = table[i]
        assert (asked.image, asked.question, asked.answer) == (row["image"], row["question"], row["answer"])
        assert (asked.description is not None) == row["need_external_knowledge"]
    lengths = table.letters()
    for i in range(0, 5124, 97):
        asked = table[i]
        assert lengths[i] == len(asked.question) + len(asked.answer) + len(asked.description or "")
    population, _, table = read(tmp_path, AQUA / "val.json", Knowledge("filter"), folder)
    assert (len(table), population.filtered) == (1507, 3617)
    population, _, table = read(tmp_path, AQUA / "val.json", Knowledge("ignore"), folder)
    assert (len(table), table[2000].description) == (5124, None)


def test_c6_a_large_file_is_read_in_constant_memory(tmp_path: Path) -> None:
    """40 MB here; growth is that of the tables' blocks, not of the file."""
    data = tmp_path / "train.jsonl"
    filler = "x" * 900
    with data.open("w", encoding="utf-8") as file:
        for i in range(40_000):
            file.write(json.dumps({**entry(i), "question": f"{i} {filler}"}) + "\n")
    folder = images(tmp_path / "i", ["0.jpg", "1.jpg", "2.jpg"])
    code = f"""
import resource
from pathlib import Path
from lavic.catalogue.image_checks import ImageChecks
from lavic.retrieval.passages import Knowledge
from lavic.tasks.vqa.table import load_questions
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checks = ImageChecks(Path({str(folder)!r}), Path({str(tmp_path)!r}))
table, _, _ = load_questions(
    Path({str(data)!r}), checks, Knowledge("ignore"), {{}}, "train", Path({str(tmp_path / "cache")!r})
)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(grown, len(table))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, count = map(int, done.stdout.split())
    assert count == 40_000
    assert grown < 30, f"{grown} MiB for a file of 40"
