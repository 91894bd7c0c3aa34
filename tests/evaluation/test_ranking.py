"""The metrics against plain loops, and IDs of any form (fault 10)."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from lavic.evaluation.item_ids import named_item
from lavic.evaluation.ranking import Prediction, by_score, ceilings, evaluate, ndcg, rank_of_truth, report


def random_predictions(count: int, seed: int = 0) -> list[Prediction]:
    rng = random.Random(seed)
    items = [f"B{i:09d}" for i in range(20)]
    predictions = []
    for _ in range(count):
        candidates = tuple(rng.sample(items, 10))
        truths = tuple(rng.choices(items, k=rng.randint(1, 4)))
        named = rng.choice([None, rng.choice(candidates), rng.choice(items)])
        predictions.append(Prediction(candidates, truths, named, tuple(rng.gauss(0, 1) for _ in range(10))))
    return predictions


def test_values_equal_plain_loops() -> None:
    predictions = random_predictions(200)
    hits = pairs = pair_hits = valid = 0
    reciprocal, gain, within = 0.0, 0.0, {3: 0, 5: 0}
    for p in predictions:
        hits += p.named in p.gt_items
        valid += p.named in p.candidates
        for truth in p.gt_items:
            pair_hits += p.named == truth
            pairs += 1
        order = sorted(range(10), key=lambda i: -p.scores[i])  # type: ignore[index]
        for place, index in enumerate(order, 1):
            if p.candidates[index] in p.gt_items:
                reciprocal += 1 / place
                for k in within:
                    within[k] += place <= k
                break
        distinct = set(p.gt_items)
        found = sum(1 / math.log2(place + 1) for place, i in enumerate(order, 1) if p.candidates[i] in distinct)
        gain += found / sum(1 / math.log2(place + 1) for place in range(1, len(distinct) + 1))
    measured = {name: interval.value for name, interval in evaluate(predictions).items()}
    assert measured == pytest.approx(
        {
            "hit_ratio@1": hits / 200,
            "recall@1_micro": pair_hits / pairs,
            "valid_ratio": valid / 200,
            "hit_ratio@3": within[3] / 200,
            "hit_ratio@5": within[5] / 200,
            "mrr": reciprocal / 200,
            "ndcg": gain / 200,
        }
    )


def test_a_repeated_truth_moves_the_micro_recall_but_not_the_hit_ratio() -> None:
    plain = [Prediction(("a", "b"), ("a",), "a"), Prediction(("a", "b"), ("b",), "a")]
    repeated = [Prediction(("a", "b"), ("a", "a"), "a"), plain[1]]
    assert evaluate(plain)["recall@1_micro"].value == 1 / 2
    assert evaluate(repeated)["recall@1_micro"].value == 2 / 3
    assert evaluate(plain)["hit_ratio@1"].value == evaluate(repeated)["hit_ratio@1"].value == 1 / 2


def test_intervals_are_seeded_and_cover_the_truth() -> None:
    predictions = random_predictions(300)
    assert evaluate(predictions, seed=1) == evaluate(predictions, seed=1)
    assert evaluate(predictions, seed=1) != evaluate(predictions, seed=2)
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        right = rng.random(150) < 0.3
        interval = evaluate([Prediction(("a",), ("a",), "a" if r else None) for r in right], 500, trial)
        covered += interval["hit_ratio@1"].low <= 0.3 <= interval["hit_ratio@1"].high
    assert 88 <= covered <= 100


def test_the_interval_equals_a_plain_bootstrap_within_its_noise() -> None:
    predictions = random_predictions(120, seed=3)
    rng = random.Random(5)
    draws = []
    for _ in range(3000):
        sample = rng.choices(predictions, k=len(predictions))
        pairs = [(p.named, truth) for p in sample for truth in p.gt_items]
        draws.append(sum(named == truth for named, truth in pairs) / len(pairs))
    low, high = np.percentile(draws, [2.5, 97.5])
    interval = evaluate(predictions, resamples=3000)["recall@1_micro"]
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.012)


def test_ranks_count_ties_and_nan_against_the_model() -> None:
    assert rank_of_truth(Prediction(("a", "b", "c"), ("b",), None, (1.0, 1.0, 0.0))) == 2
    assert rank_of_truth(Prediction(("a", "b", "c"), ("b",), None, (math.nan, 1.0, 0.0))) == 2
    assert rank_of_truth(Prediction(("a", "b"), ("b",), None, (0.0, math.nan))) == math.inf
    assert rank_of_truth(Prediction(("a", "b"), ("z",), None, (0.0, 1.0))) == math.inf
    assert rank_of_truth(Prediction(("a", "b", "c"), ("b", "c"), None, (0.5, 0.1, 0.9))) == 1


def test_ndcg_equals_torchmetrics_where_every_truth_is_a_candidate() -> None:
    for p in random_predictions(100, seed=4):
        truths = tuple(item for item in p.gt_items if item in p.candidates)
        if truths:
            relevant = torch.tensor([item in truths for item in p.candidates])
            right = retrieval_normalized_dcg(torch.tensor(p.scores), relevant)
            assert ndcg(Prediction(p.candidates, truths, None, p.scores)) == pytest.approx(float(right), abs=1e-6)
    assert ndcg(Prediction(("a", "b"), ("a", "z"), None, (1.0, 0.0))) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert ndcg(Prediction(("a", "b"), ("a",), None, (1.0, 1.0))) == pytest.approx(1 / math.log2(3))
    assert ndcg(Prediction(("a", "b"), (), None, (1.0, 1.0))) == 0


def test_intervals_draw_whole_threads() -> None:
    single = [Prediction(("a",), ("a",), "a" if i % 3 else None) for i in range(60)]
    rows = [replace(p, thread=f"thread {i}") for i, p in enumerate(single) for _ in range(4)]
    by_thread, by_row = evaluate(rows)["hit_ratio@1"], evaluate([replace(p, thread=None) for p in rows])["hit_ratio@1"]
    assert by_thread == evaluate(single)["hit_ratio@1"], "four copies of a conversation say no more than one"
    assert (by_thread.high - by_thread.low) / (by_row.high - by_row.low) == pytest.approx(2, rel=0.15)
    assert report({"generated": rows})["overall"]["threads"] == 60


def test_ceilings() -> None:
    predictions = [
        Prediction(("a", "b"), ("a", "a", "b"), None),
        Prediction(("a", "b"), ("z",), None),
    ]
    assert ceilings(predictions) == {"hit_ratio@1": 1 / 2, "recall@1_micro": 2 / 4}


def test_report_splits_off_several_distinct_truths_and_leaves_out_unanswerable_ones() -> None:
    predictions = [
        Prediction(("a", "b"), ("a", "b"), "a"),
        Prediction(("a", "b"), ("a", "a"), "b"),
        Prediction(("a", "b"), (), "b"),
    ]
    entries = report({"generated": predictions, "first_candidate": predictions[::-1]})
    assert entries["overall"]["conversations"] == 2
    assert entries["overall"]["ways"]["generated"]["hit_ratio@1"]["value"] == 1 / 2
    assert entries["multi_truth"]["conversations"] == 1
    assert entries["multi_truth"]["ways"]["first_candidate"]["hit_ratio@1"]["value"] == 1
    assert entries["multi_truth"]["ceilings"] == {"hit_ratio@1": 1.0, "recall@1_micro": 1 / 2}
    assert report({"generated": []})["overall"]["ways"] == {"generated": {}}


def test_the_highest_score_names_the_candidate() -> None:
    assert by_score(("a", "b", "c"), ("b",), (math.nan, -1.0, -2.0)).named == "b"
    assert by_score(("a", "b"), (), (math.nan, math.nan)).named == "a"


def test_fault_10_ids_that_do_not_start_with_b() -> None:
    candidates = ("5555454546", "B00NN2Y04E")
    assert named_item("5555454546", candidates) == "5555454546"
    assert named_item(" I would take 5555454546.", candidates) == "5555454546"
    assert named_item("B00NN2Y04E or 5555454546", candidates) == "B00NN2Y04E"
    assert named_item("0060188782!", candidates, catalogue={"0060188782"}) == "0060188782"
    assert named_item("BEAUTIFULS", candidates, catalogue={"0060188782"}) is None
    assert named_item("B00NN2Y04E5", candidates) is None
    assert named_item("", candidates) is None
    assert named_item("sofa-12_x", ("sofa-12_x", "sofa-12")) == "sofa-12_x"
    assert named_item("see (B07MJV2R9S), B00NN2Y04E", candidates, {"B07MJV2R9S"}) == "B07MJV2R9S"
