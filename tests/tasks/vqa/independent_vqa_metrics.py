"""VQA's numbers from a written detailed_results.jsonl: forty lines that import nothing of lavic."""

import json
import re
import string
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np


def squad(text: str) -> list[str]:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def right(said: str, truth: str, mode: str) -> float:
    return float(said == truth or (mode == "squad" and squad(said) != [] and squad(said) == squad(truth)))


def f1(said: str, truth: str) -> float:
    a, b = squad(said), squad(truth)
    return 2 * sum((Counter(a) & Counter(b)).values()) / len(a + b) if a and b else float(said == truth)


def with_interval(values: list[float], images: list[str], seed: int = 42) -> list[float]:
    sums, sizes = dict.fromkeys(images, 0.0), Counter(images)
    for value, image in zip(values, images, strict=True):
        sums[image] += value
    picks = np.random.default_rng(seed).integers(len(sums), size=(2000, len(sums)))
    drawn = np.array(list(sums.values()))[picks].sum(1) / np.array([sizes[image] for image in sums])[picks].sum(1)
    return [sum(values) / len(values), *np.percentile(drawn, [2.5, 97.5]).tolist()]


def numbers(path: Path, mode: str, needs: tuple[bool, ...] = (True, False), way: str = "response") -> dict[str, Any]:
    lines = [json.loads(line) for line in path.open(encoding="utf-8")]
    rows = [r for r in lines if r["response"] is not None and r["need_external_knowledge"] in needs and way in r]
    images = [row["image"] for row in rows]
    forms = [row["ground_truth"] if mode == "strict" else " ".join(squad(row["ground_truth"])) for row in rows]
    forms = [form or row["ground_truth"] for form, row in zip(forms, rows, strict=True)]
    alike = Counter((row["image"] + "\0" + row["question"], form) for form, row in zip(forms, rows, strict=True))
    best: Counter[str] = Counter()
    for (question, _), count in alike.items():
        best[question] = max(best[question], count)
    return {
        "samples": len(rows),
        "exact_match": with_interval([right(row[way], row["ground_truth"], mode) for row in rows], images),
        "token_f1": with_interval([f1(row[way], row["ground_truth"]) for row in rows], images),
        "ceiling": best.total() / len(rows),
        "majority": Counter(forms).most_common(1)[0][1] / len(rows),
    }
