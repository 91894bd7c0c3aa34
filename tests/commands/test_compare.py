"""`compare`: the numbers of written results against plain ones, the same cases for all, mistakes named."""

import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest

from lavic.commands.compare import main
from lavic.errors import UserError
from lavic.evaluation.comparison import mcnemar

TRUTHS = ["cat", "dog", "x", "the"]
CANDIDATES = [f"item-{i}" for i in range(5)]


def record(line: int, category: str, rng: random.Random, skill: float) -> dict[str, Any]:
    truth = CANDIDATES[line % 5]
    scores = [rng.gauss(0, 1) + skill * (item == truth) for item in CANDIDATES]
    context = f"<submission>Wish {category} {line // 2}</submission>\n<comment>{line}</comment>"
    chosen = CANDIDATES[scores.index(max(scores))]
    return {
        "category": category, "context": context, "gt_items": [truth], "candidates_st": CANDIDATES, "scores_st": scores,
        "recommended_st": None, "constrained_st": chosen, "tokens_st": [3, 4, 3, 4, 3],
    }  # fmt: skip


def write_run(folder: Path, seed: int, skill: float, count: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    records = [record(line, category, rng, skill) for category in ("shoes", "lamps") for line in range(count)]
    folder.mkdir()
    path = folder / "test_results_candidates_st.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return records


def hits(records: list[dict[str, Any]]) -> list[bool]:
    return [r["constrained_st"] in r["gt_items"] for r in records]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main([*arguments, "--json", "--resamples", "500"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_two_systems_on_the_same_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = write_run(tmp_path / "good", 1, 2.0), write_run(tmp_path / "bad", 2, 0.2)
    result = run(capsys, str(tmp_path / "good"), str(tmp_path / "bad"))
    cells = {cell["domain"]: cell for cell in result["cells"]}
    assert set(cells) == {"shoes", "lamps", "all"}
    assert (cells["all"]["cases"], cells["all"]["clusters"]) == (80, 40)
    test = cells["all"]["tests"][0]
    assert [v["value"] for v in cells["all"]["values"]] == [statistics.mean(hits(good)), statistics.mean(hits(bad))]
    assert test["difference"]["value"] == pytest.approx(statistics.mean(hits(good)) - statistics.mean(hits(bad)))
    assert test["difference"]["low"] > 0
    assert test["difference"]["p"] < 0.05
    right = mcnemar(hits(good), hits(bad))
    assert (test["mcnemar"]["only_first"], test["mcnemar"]["p_exact"]) == (right.only_first, right.p_exact)
    assert cells["shoes"]["values"][0]["value"] == statistics.mean(hits(good[:40]))

    main([str(tmp_path / "good"), str(tmp_path / "bad"), "--metric", "mrr"])
    out = capsys.readouterr().out
    assert "shoes / st (n=40)" in out
    assert "McNemar" not in out, "a reciprocal rank is neither right nor wrong"


def test_several_seeds_are_a_mean_and_a_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = [write_run(tmp_path / f"a{i}", i, 1.0) for i in range(3)]
    write_run(tmp_path / "b", 9, 1.0)
    joined = ",".join(str(tmp_path / f"a{i}") for i in range(3))
    result = run(capsys, joined, str(tmp_path / "b"))
    value = next(cell for cell in result["cells"] if cell["domain"] == "all")["values"][0]
    ratios = [statistics.mean(hits(records)) for records in seeds]
    assert value["value"] == pytest.approx(statistics.mean(ratios))
    assert value["seeds"]["deviation"] == pytest.approx(statistics.stdev(ratios))
    assert "mcnemar" not in result["cells"][0]["tests"][0]


def test_cases_that_a_run_lacks_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "all", 1, 1.0)
    write_run(tmp_path / "some", 2, 1.0, count=30)
    main([str(tmp_path / "some"), str(tmp_path / "all")])
    printed = capsys.readouterr()
    assert "shoes / st: 10 cases are not in every run" in printed.err
    assert "(n=60)" in printed.out


def test_over_the_whole_catalogue_what_was_not_retrieved_is_a_miss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks: dict[str, list[int | None]] = {"titles": [None, 3, None, 1], "both": [1, 2, None, 1]}
    for name, best in ranks.items():
        write_run(tmp_path / name, 1, 1.0)  # of some of the conversations, with candidates of its own
        rows = [
            {"category": "shoes", "context": f"<submission>{n}</submission>", "gt_items": ["x"],
             "ranks": {"scored": rank, "no_images": None}}
            for n, rank in enumerate(best)
        ]  # fmt: skip
        rows.append({"category": "shoes", "context": "no truth", "gt_items": [], "ranks": {"scored": None}})
        (tmp_path / name / "end_to_end_results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = str(tmp_path / "titles"), str(tmp_path / "both")
    [cell] = run(capsys, *runs)["cells"]
    assert (cell["domain"], cell["candidates"], cell["cases"]) == ("shoes", "retrieved", 4)
    assert [value["value"] for value in cell["values"]] == [0.25, 0.5]
    assert cell["tests"][0]["difference"]["value"] == -0.25
    assert (cell["tests"][0]["mcnemar"]["only_first"], cell["tests"][0]["mcnemar"]["only_second"]) == (0, 1)
    [cell] = run(capsys, *runs, "--metric", "mrr")["cells"]
    assert [value["value"] for value in cell["values"]] == pytest.approx([(1 / 3 + 1) / 4, 2.5 / 4])
    for mistake, message in (("--metric=ndcg", "has no 'ndcg'"), ("--way=guessed", "no choices by 'guessed'")):
        with pytest.raises(UserError, match=message):
            main([*runs, mistake])


def test_answers_to_questions_are_compared_by_exact_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: dict[str, list[str | None]] = {"one": ["A cat.", "dog", None, "the"], "two": ["dog", "dog", "x", "the"]}
    for name, responses in said.items():
        folder = tmp_path / name / "evaluation_results"
        folder.mkdir(parents=True)
        rows = [
            {"sample_id": i, "image": f"{i}.jpg", "question": "what", "ground_truth": truth, "response": response,
             "need_external_knowledge": i > 1}
            for i, (truth, response) in enumerate(zip(TRUTHS, responses, strict=True))
        ]  # fmt: skip
        (folder / "detailed_results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cells = {c["domain"]: c for c in run(capsys, str(tmp_path / "one"), str(tmp_path / "two"))["cells"]}
    assert [v["value"] for v in cells["all"]["values"]] == [0.75, 0.75]
    assert [v["value"] for v in cells["with_external_knowledge"]["values"]] == [0.5, 1.0]
    strict = run(capsys, str(tmp_path / "one"), str(tmp_path / "two"), "--metric", "exact_match_strict")
    assert next(c for c in strict["cells"] if c["domain"] == "all")["values"][0]["value"] == 0.5


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", 1, 1.0)
    (tmp_path / "empty").mkdir()
    run_a = str(tmp_path / "a")
    for arguments, said in (
        ([run_a, str(tmp_path / "empty")], "holds no results of a test"),
        ([run_a, str(tmp_path / "nowhere")], "holds no results of a test"),
        ([run_a, ","], "names no run"),
        ([run_a, "--metric", "f2"], "has no 'f2' under scored"),
        ([run_a, "--way", "guessed"], "no choices by 'guessed'"),
        ([run_a, "--resamples", "0"], "at least 1"),
    ):
        with pytest.raises(UserError, match=said):
            main(arguments)
    assert capsys.readouterr().out == ""
