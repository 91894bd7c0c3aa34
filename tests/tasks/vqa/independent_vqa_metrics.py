"""VQA's numbers from a written detailed_results.jsonl, without importing lavic.

python tests/tasks/vqa/independent_vqa_metrics.py detailed_results.jsonl
"""

import json
import re
import string
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np


def squad(text: str) -> str:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def right(response: str, truth: str, mode: str) -> bool:
    return response == truth or (mode == "squad" and squad(response) != "" and squad(response) == squad(truth))


def f1(response: str, truth: str) -> float:
    a, b = squad(response).split(), squad(truth).split()
    if not a or not b:
        return float(response == truth)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / len(a + b)


def interval(values: list[float], images: list[str]) -> list[float]:
    names = list(dict.fromkeys(images))
    groups = [[v for v, image in zip(values, images, strict=True) if image == name] for name in names]
    sums, sizes = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])
    picks = np.random.default_rng(42).integers(len(names), size=(2000, len(names)))
    low, high = np.percentile(sums[picks].sum(1) / sizes[picks].sum(1), [2.5, 97.5])
    return [float(low), float(high)]


def numbers(rows: list[dict[str, Any]], mode: str) -> dict[str, Any]:
    hits = [float(right(r["response"], r["ground_truth"], mode)) for r in rows]
    asked: dict[tuple[str, str], Counter[str]] = {}
    for r in rows:
        form = r["ground_truth"] if mode == "strict" else squad(r["ground_truth"]) or r["ground_truth"]
        asked.setdefault((r["image"], r["question"]), Counter())[form] += 1
    return {
        "exact_match_score": sum(hits) / len(rows),
        "exact_match_interval": interval(hits, [r["image"] for r in rows]),
        "correct_predictions": sum(hits),
        "token_f1": sum(f1(r["response"], r["ground_truth"]) for r in rows) / len(rows),
        "ceiling": sum(max(c.values()) for c in asked.values()) / len(rows),
    }


def all_metrics(path: Path, mode: str) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    said = [row for row in rows if row["response"] is not None]
    groups = {"all": said} | {
        name: [row for row in said if row["need_external_knowledge"] == needs]
        for name, needs in (("with_external_knowledge", True), ("without_external_knowledge", False))
    }
    return {name: numbers(group, mode) for name, group in groups.items() if group}


if __name__ == "__main__":
    print(json.dumps({mode: all_metrics(Path(sys.argv[1]), mode) for mode in ("squad", "strict")}, indent=1))
