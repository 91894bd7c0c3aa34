"""Retrieval against a plain BM25, and that the ground truth is never looked at."""

import json
import math
import re
import sys
import types
from pathlib import Path
from typing import Any

import bm25s  # type: ignore[import-untyped]
import numpy as np
import pytest

from lavic.commands.retrieve import main, retrieve
from lavic.errors import UserError

TITLES = {
    "5555454546": "Red striped kitchen towel",
    "B000000001": "Blue kitchen mixer, kitchen aid",
    "B000000002": "Garden hose, red",
    "B000000003": "Striped socks",
    "B000000004": "Wooden spoon",
}
CONTEXTS = [
    "<submission>A red towel for my kitchen?</submission>",
    "<comment>Striped red socks</comment>",
    "zzz",
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    metadata = tmp_path / "items.json"
    metadata.write_text(json.dumps({item: {"title": title} for item, title in TITLES.items()}))
    conversations = tmp_path / "in.jsonl"
    truths = [["5555454546", "B000000004"], ["B000000003", "B000000003"], []]
    records = [{"context": c, "gt_items": t, "gt": "ä"} for c, t in zip(CONTEXTS, truths, strict=True)]
    conversations.write_text("\n".join(json.dumps(record) for record in records))
    return conversations, metadata


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def plain_bm25(query: str, documents: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    stop = set(bm25s.stopwords.STOPWORDS_EN)

    def words(text: str) -> list[str]:
        return [w for w in re.findall(r"\b\w\w+\b", text.lower()) if w not in stop]

    split = [words(document) for document in documents]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for document in split:
        score = 0.0
        for word in words(re.sub("<[^>]*>", " ", query)):
            holding = sum(word in other for other in split)
            idf = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
            count = document.count(word)
            score += idf * count / (count + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores


def test_candidates_are_the_exact_top_k_of_bm25(files: tuple[Path, Path], tmp_path: Path) -> None:
    conversations, metadata = files
    values = retrieve(conversations, [metadata], tmp_path / "out.jsonl", k=2)
    for record, context in zip(read(tmp_path / "out.jsonl"), CONTEXTS, strict=True):
        scores = plain_bm25(context, list(TITLES.values()))
        order = [i for i in sorted(range(5), key=lambda i: (-round(scores[i], 5), i))[:2] if scores[i] > 0]
        assert record["candidates_bm25"] == [list(TITLES)[i] for i in order]
        assert record["gt"] == "ä"
    assert values == {"recall@2": 2 / 3, "hit_ratio@2": 1.0}


def test_the_ground_truth_is_never_looked_at(files: tuple[Path, Path], tmp_path: Path) -> None:
    conversations, metadata = files
    retrieve(conversations, [metadata], tmp_path / "with.jsonl", k=3)
    without = tmp_path / "without_truth.jsonl"
    without.write_text("\n".join(json.dumps({"context": record["context"]}) for record in read(conversations)))
    assert retrieve(without, [metadata], tmp_path / "without.jsonl", k=3) == {}
    candidates = [[r["candidates_bm25"] for r in read(tmp_path / f"{n}.jsonl")] for n in ("with", "without")]
    assert candidates[0] == candidates[1]


def test_what_matches_nothing_gets_no_candidates_and_is_said(
    files: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conversations, metadata = files
    retrieve(conversations, [metadata], tmp_path / "out.jsonl", k=2)
    assert read(tmp_path / "out.jsonl")[2]["candidates_bm25"] == []
    assert "1 of 3 conversations share no word with the catalogue" in caplog.text


def test_descriptions_are_searched_where_asked(files: tuple[Path, Path], tmp_path: Path) -> None:
    conversations, metadata = files
    items = json.loads(metadata.read_text())
    items["B000000004"]["image_descriptions_llava_cleaned"] = {"B000000004_0.jpg": "A towel", "B000000004_1.jpg": "zzz"}
    metadata.write_text(json.dumps(items))
    found = {}
    for index in ("titles", "descriptions", "both"):
        retrieve(conversations, [metadata], tmp_path / "out.jsonl", k=5, index=index)
        found[index] = [set(record["candidates_bm25"]) for record in read(tmp_path / "out.jsonl")]
    red = {"5555454546", "B000000002"}
    assert found["titles"] == [red | {"B000000001"}, red | {"B000000003"}, set()]
    assert found["descriptions"] == [{"B000000004"}, set(), {"B000000004"}]
    assert found["both"] == [a | b for a, b in zip(found["titles"], found["descriptions"], strict=True)]


def test_embeddings_are_ranked_by_cosine(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LetterCounts:
        def __init__(self, name: str) -> None: ...

        def encode(self, texts: list[str], normalize_embeddings: bool, show_progress_bar: bool) -> Any:
            counts = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], float)
            return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = LetterCounts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    conversations, metadata = files
    arguments = [
        "--conversations",
        str(conversations),
        "--metadata",
        f"[{metadata}]",
        "--method",
        "embeddings",
    ]
    (tmp_path / "letters").mkdir()
    model = ["--model", str(tmp_path / "letters")]
    assert main([*arguments, *model, "--name", "st", "--k", "3", "--output", f"{tmp_path}/o.jsonl"]) == 0
    counted = LetterCounts("").encode([*TITLES.values()], True, False)
    for record, context in zip(read(tmp_path / "o.jsonl"), CONTEXTS, strict=True):
        query = LetterCounts("").encode([re.sub("<[^>]*>", " ", context)], True, False)[0]
        cosines = dict(zip(TITLES, (counted @ query).tolist(), strict=True))
        found = [cosines[item] for item in record["candidates_st"]]  # of equal ones it may be any
        assert found == pytest.approx(sorted(cosines.values(), reverse=True)[:3])
        assert len(set(record["candidates_st"])) == 3


def test_wrong_options_are_the_users_errors(files: tuple[Path, Path], tmp_path: Path) -> None:
    conversations, metadata = files
    output = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="k is 6"):
        retrieve(conversations, [metadata], output, k=6)
    with pytest.raises(UserError, match="needs --model"):
        retrieve(conversations, [metadata], output, method="embeddings")
    with pytest.raises(UserError, match="conversation file itself"):
        retrieve(conversations, [metadata], conversations, k=2)
    conversations.write_text('{"context": "a"}\n{"context": 3}')
    with pytest.raises(UserError, match=r'Line 2 .* has no "context"'):
        retrieve(conversations, [metadata], output, k=2)
    assert not list(tmp_path.glob("out*"))


def test_of_items_that_match_alike_not_the_first_files_are_taken(tmp_path: Path) -> None:
    """In the files' order, ten of the first file's forty rugs were every conversation's candidates."""
    for name, letter in (("train", "A"), ("valid", "B")):
        items = {f"{letter}{n:03d}": {"title": "Area rug"} for n in range(40)}
        (tmp_path / f"{name}.json").write_text(json.dumps(items))
    (tmp_path / "c.jsonl").write_text(json.dumps({"context": "a rug"}) + "\n")
    metadata = [tmp_path / "train.json", tmp_path / "valid.json"]
    retrieve(tmp_path / "c.jsonl", metadata, tmp_path / "o.jsonl", k=20)
    [record] = read(tmp_path / "o.jsonl")
    assert {item[0] for item in record["candidates_bm25"]} == {"A", "B"}
    retrieve(tmp_path / "c.jsonl", metadata[::-1], tmp_path / "o.jsonl", k=20)
    assert read(tmp_path / "o.jsonl") == [record], "the order of the files does not matter"


def test_an_item_without_a_title_is_found_by_its_description(tmp_path: Path) -> None:
    described = {"image_descriptions_llava_cleaned": {"B1_0.jpg": "A yellow cushion with stars."}}
    items = {"A1": {"title": "Cushion"}, "B1": {"title": "", **described}, "B2": {"title": None}}
    (tmp_path / "i.json").write_text(json.dumps(items))
    (tmp_path / "c.jsonl").write_text(
        json.dumps({"context": "yellow, with stars"}) + "\n" + json.dumps({"context": "no title"})
    )
    retrieve(tmp_path / "c.jsonl", [tmp_path / "i.json"], tmp_path / "o.jsonl", k=3)
    found = [record["candidates_bm25"] for record in read(tmp_path / "o.jsonl")]
    assert found == [["B1"], []], "the prompt's words for a missing title are no title"
