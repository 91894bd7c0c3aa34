"""Stage 2's numbers from a written test_results_<candidates>.jsonl, without importing lavic.

python tests/independent_recommendation_metrics.py test_results_candidates_st.jsonl
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCORES = {
    "scored": "scores_{}",
    "scored_per_token": "scores_{}",
    "no_images": "scores_no_images_{}",
    "shuffled_images": "scores_shuffled_images_{}",
}


def one_way(rows: list[dict[str, Any]], way: str, key: str) -> dict[str, float]:
    """The metrics of one way to choose; `key` is the name of the candidates."""
    short = key.removeprefix("candidates_")
    hits = pairs = named_truths = valid = best3 = best5 = reciprocal = gain = 0.0
    for row in rows:
        truths, candidates = row["gt_items"], row[key]
        if way in SCORES:
            lengths = row[f"tokens_{short}"] if way == "scored_per_token" else [1] * len(candidates)
            scores = [score / length for score, length in zip(row[SCORES[way].format(short)], lengths, strict=True)]
            order = sorted(zip(scores, candidates, strict=True), key=lambda pair: -pair[0])
            named = order[0][1]
            rank = next((place for place, (_, item) in enumerate(order, 1) if item in truths), None)
            best3, best5 = best3 + (rank is not None and rank <= 3), best5 + (rank is not None and rank <= 5)
            reciprocal += 1 / rank if rank else 0
            found_gain = sum(1 / math.log2(1 + place) for place, (_, item) in enumerate(order, 1) if item in truths)
            gain += found_gain / sum(1 / math.log2(1 + place) for place in range(1, len(set(truths)) + 1))
        else:
            field = {"generated": f"recommended_{short}", "constrained": f"constrained_{short}"}.get(way)
            named = row[field] if field else candidates[0]
        hits, valid = hits + (named in truths), valid + (named in candidates)
        pairs, named_truths = pairs + len(truths), named_truths + sum(truth == named for truth in truths)
    n = len(rows)
    found = {"hit_ratio@1": hits / n, "recall@1_micro": named_truths / pairs, "valid_ratio": valid / n}
    if way in SCORES:
        found |= {"hit_ratio@3": best3 / n, "hit_ratio@5": best5 / n, "mrr": reciprocal / n, "ndcg": gain / n}
    return found


def all_metrics(
    path: Path, controls: Sequence[str] = ("no_images", "shuffled_images")
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """group -> overall or multi_truth -> way -> metric, and the ceiling of HitRatio@1 under the way `ceiling`."""
    rows = [row for row in map(json.loads, path.open(encoding="utf-8")) if row["gt_items"]]
    key = path.stem.removeprefix("test_results_")
    categories = {row["category"] for row in rows}
    groups = {"all": rows} | {name: [row for row in rows if row["category"] == name] for name in categories}
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for group, members in groups.items():
        several = [row for row in members if len(set(row["gt_items"])) > 1]
        found[group] = {}
        for entries, chosen in (("overall", members), ("multi_truth", several)):
            ways = (
                ("generated", "constrained", "first_candidate", "scored", "scored_per_token", *controls)
                if chosen
                else ()
            )
            found[group][entries] = {way: one_way(chosen, way, key) for way in ways}
            if chosen:
                reachable = sum(any(item in row["gt_items"] for item in row[key]) for row in chosen)
                found[group][entries]["ceiling"] = {"hit_ratio@1": reachable / len(chosen)}
    return found


if __name__ == "__main__":
    print(json.dumps(all_metrics(Path(sys.argv[1])), indent=1))
