"""Threads, scores by sum and by token, and what the number of an ID's tokens tells of its score."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from lavic.catalogue.conversations import Conversation
from lavic.evaluation.ranking import thread_of
from lavic.tasks.recommendation.results import (
    Answer,
    length_correlation,
    summary_lines,
    ways_of,
    write_results,
)
from tests.independent_recommendation_metrics import all_metrics

REAL = Path(__file__).parents[3].parent / "shared" / "lavic_data"


def written(folder: Path, slope: float, count: int = 60) -> tuple[list[Conversation], list[Answer]]:
    """Conversations, three of each thread, with IDs of 3 to 6 tokens whose score falls by `slope` a token."""
    rng = random.Random(0)
    conversations, answers = [], []
    for line in range(count):
        candidates = tuple(f"item-{line}-{i}" for i in range(5))
        truths = tuple(rng.sample(candidates, 2))
        context = f"<submission>Wish {line // 3}</submission>\n<comment>{line}</comment>\n"
        record = {"context": context, "gt_items": list(truths), "candidates_st": list(candidates)}
        conversations.append(Conversation("shoes", line, context, candidates, truths, record))
        tokens = [rng.randint(3, 6) for _ in candidates]
        scores = [-slope * n + rng.gauss(0, 0.5) for n in tokens]
        shuffled = [rng.gauss(-9, 1) for _ in candidates]
        answers.append(Answer("text", None, candidates[0], {"scored": scores, "shuffled_images": shuffled}, tokens))
    return conversations, answers


def test_all_numbers_equal_an_independent_script(tmp_path: Path) -> None:
    conversations, answers = written(tmp_path, 1.0)
    metrics = write_results(tmp_path, "candidates_st", conversations, answers, {"model": "m"}, 42)
    ours = metrics["groups"]["all"]["overall"]["ways"]
    lines = (tmp_path / "test_results_candidates_st.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["tokens_st"] == list(answers[0].tokens)
    script = all_metrics(tmp_path / "test_results_candidates_st.jsonl", controls=("shuffled_images",))
    for way, values in script["all"]["overall"].items():
        if way != "ceiling":
            assert {name: m["value"] for name, m in ours[way].items()} == pytest.approx(values), way
    assert metrics["groups"]["all"]["overall"]["threads"] == 20


def test_the_correlation_is_within_conversations(tmp_path: Path) -> None:
    _, answers = written(tmp_path, 1.0)
    tokens = [n for a in answers for n in np.asarray(a.tokens) - np.mean(a.tokens)]
    scores = [s for a in answers for s in np.asarray(a.scores["scored"]) - np.mean(a.scores["scored"])]
    found = length_correlation(answers)
    assert found["scored"] == pytest.approx(np.corrcoef(tokens, scores)[0, 1])
    assert (found["scored"] or 0) < -0.8
    assert abs(found["scored_per_token"] or 1) < 0.3
    # a conversation whose scores are all lower says nothing of length
    moved = [
        Answer("", None, "", {"scored": [score - 50.0 * i for score in a.scores["scored"]]}, a.tokens)
        for i, a in enumerate(answers)
    ]
    assert length_correlation(moved)["scored"] == pytest.approx(found["scored"])
    same = [Answer("", None, "", {"scored": a.scores["scored"]}, [4] * 5) for a in answers]
    assert length_correlation(same) == {"scored": None, "scored_per_token": None}
    assert length_correlation([Answer("", None, "", {})]) == {}


def test_the_mean_by_token_is_a_way_of_its_own_and_both_are_printed(tmp_path: Path) -> None:
    conversations, answers = written(tmp_path, 1.0)
    ways = ways_of(conversations, answers)
    for c, a, summed, mean in zip(conversations, answers, ways["scored"], ways["scored_per_token"], strict=True):
        scores = a.scores["scored"]
        assert summed.named == c.candidates[int(np.argmax(scores))]
        assert mean.named == c.candidates[int(np.argmax(np.asarray(scores) / np.asarray(a.tokens)))]
    assert [p.named for p in ways["scored"]] != [p.named for p in ways["scored_per_token"]]
    metrics = write_results(tmp_path, "candidates_st", conversations, answers, {"model": "m"}, 42)
    text = "\n".join(summary_lines(metrics["groups"]))
    assert "60 conversations of 20 threads" in text
    assert "correlation of an ID's tokens and its score within conversations: scored -0." in text
    assert "scored_per_token" not in ways_of(conversations, [Answer("", None, "x", a.scores) for a in answers])


def test_a_summary_of_an_earlier_release_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "results_summary.csv"
    path.write_text("model,group,way,older\nm0,all,scored,7\n")
    conversations, answers = written(tmp_path, 1.0, 6)
    write_results(tmp_path, "candidates_st", conversations, answers, {"model": "m"}, 42)
    write_results(tmp_path, "candidates_st", conversations, answers, {"model": "m2"}, 42)
    rows = list(csv.DictReader(path.open()))
    assert (rows[0]["model"], rows[0]["older"], rows[0]["mrr"]) == ("m0", "7", "")
    assert {row["model"] for row in rows} == {"m0", "m", "m2"}
    assert all(row["ndcg"] for row in rows if row["way"] == "scored" and row["model"] != "m0")


def test_a_thread_is_its_submission() -> None:
    assert thread_of("<submission>A b</submission>\n<comment>x</comment>") == "A b"
    assert thread_of("<submission>A  b\n</submission>") == thread_of("<submission>A b</submission><comment>y</comment>")
    assert thread_of("<submission>cut off") == "cut off"
    assert thread_of("no marks") == "no marks"
    deleted = "<submission></submission>\n<comment>{}</comment>"
    assert thread_of(deleted.format("a")) != thread_of(deleted.format("b"))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no {REAL}")
def test_the_published_files_hold_several_rows_of_one_thread() -> None:
    lines = (REAL / "all_beauty" / "valid.jsonl").read_text(encoding="utf-8").splitlines()
    threads = [thread_of(json.loads(line)["context"]) for line in lines]
    assert (len(threads), len(set(threads))) == (758, 692)
