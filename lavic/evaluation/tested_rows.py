"""What a `test` has written, row by row, as one metric's numerator and denominator: what two runs are compared on."""

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavic.errors import UserError
from lavic.evaluation.exact_match import exact_match, token_f1
from lavic.evaluation.ranking import Prediction, by_score, columns_of, thread_of
from lavic.files.json_entries import Entry, read_entries

RECOMMENDED = "test_results_*.jsonl"
RANKED = "end_to_end_results.jsonl"
ANSWERED = "evaluation_results/detailed_results.jsonl"
RESULTS = (RECOMMENDED, ANSWERED)
QUESTIONS = ("exact_match", "exact_match_strict", "token_f1")


@dataclass(frozen=True)
class TestedRow:
    """A case of a test.

    Attributes:
        case: tells it from others, the same in every run.
        cluster: what is independent of the others: a thread, an image.
        domain: the category; for VQA, whether a question needs outside knowledge.
        candidates: their name, such as `st`; `retrieved` of a test over the whole catalogue; "" for VQA.
        metric: what is compared.
        numerator: the case's share of the metric's sum.
        denominator: what the sum is divided by.
        is_right: right or wrong, where the metric is one of these two.
    """

    __test__ = False  # pytest takes a class of this name for tests

    case: Hashable
    cluster: Hashable
    domain: str
    candidates: str
    metric: str
    numerator: float
    denominator: float
    is_right: bool | None


def read_tested_rows(folder: Path, way: str, metric: str | None) -> Iterator[TestedRow]:
    """The rows of a run's output directory.

    Args:
        folder: what `test` wrote into.
        way: how a recommendation was chosen, as `metrics.json` names it.
        metric: as `metrics.json` names it; null takes hit_ratio@1, or exact_match.

    Raises:
        UserError: there are no results, or none under that way or metric.
    """
    recommended, answered = sorted(folder.glob(RECOMMENDED)), folder / ANSWERED
    if (folder / RANKED).is_file():
        yield from _ranks(folder / RANKED, way, metric or "hit_ratio@1")
    elif recommended:
        for path in recommended:
            yield from _recommendations(path, way, metric or "hit_ratio@1")
    elif answered.is_file():
        yield from _answers(answered, metric or "exact_match")
    else:
        raise UserError(f"{folder} holds no results of a test ({' or '.join(RESULTS)}); run test with that output.")


def _recommendations(path: Path, way: str, metric: str) -> Iterator[TestedRow]:
    name = path.stem.removeprefix("test_results_candidates_")
    records = [record for record in _lines(path) if record["gt_items"]]
    predictions = [_prediction(path, record, name, way) for record in records]
    columns = columns_of(predictions)
    if metric not in columns:
        raise UserError(f"{path} has no '{metric}' under {way}; it has {', '.join(columns)}.")
    above, below = columns[metric]
    is_count = metric.startswith("hit_ratio") or metric == "valid_ratio"
    seen: Counter[Hashable] = Counter()
    for record, prediction, numerator, denominator in zip(records, predictions, above, below, strict=True):
        case = (record["category"], record["context"], tuple(record["gt_items"]))
        seen[case] += 1
        right = bool(numerator) if is_count else None
        place, value = (*case, seen[case]), (float(numerator), float(denominator))
        yield TestedRow(place, prediction.thread, record["category"], name, metric, *value, right)


def _ranks(path: Path, way: str, metric: str) -> Iterator[TestedRow]:
    """Of every conversation, also those for which nothing was retrieved: a miss, however each run has retrieved."""
    depth = metric.removeprefix("hit_ratio@")
    if metric != "mrr" and not (metric != depth and depth.isdecimal()):
        raise UserError(f"{path} has no '{metric}' under {way}; it has mrr, hit_ratio@1, hit_ratio@10, ...")
    seen: Counter[Hashable] = Counter()
    for record in _lines(path):
        if not record["gt_items"]:
            continue
        if way not in record["ranks"]:
            raise UserError(f"{path} holds no choices by '{way}'; give --way {', '.join(record['ranks'])}.")
        rank = record["ranks"][way]
        right = None if metric == "mrr" else rank is not None and rank <= int(depth)
        value = float(right) if right is not None else 1 / rank if rank else 0.0
        case = (record["category"], record["context"], tuple(record["gt_items"]))
        seen[case] += 1
        thread = record["category"], thread_of(record["context"])
        yield TestedRow((*case, seen[case]), thread, record["category"], "retrieved", metric, value, 1.0, right)


def _prediction(path: Path, record: dict[str, Any], name: str, way: str) -> Prediction:
    candidates, truths = tuple(record[f"candidates_{name}"]), tuple(record["gt_items"])
    thread = thread_of(record["context"])
    named = {"generated": f"recommended_{name}", "constrained": f"constrained_{name}"}.get(way)
    if named in record:
        return Prediction(candidates, truths, record[named], thread=thread)
    if way == "first_candidate":
        return Prediction(candidates, truths, candidates[0], thread=thread)
    scores = record.get(f"scores_{name}" if way in ("scored", "scored_per_token") else f"scores_{way}_{name}")
    if way == "scored_per_token" and scores is not None:
        tokens = record.get(f"tokens_{name}")
        scores = tokens and [score / count for score, count in zip(scores, tokens, strict=True)]
    if scores is None:
        raise UserError(f"{path} holds no choices by '{way}'; give --way scored, generated or constrained.")
    return by_score(candidates, truths, scores, thread)


def _answers(path: Path, metric: str) -> Iterator[TestedRow]:
    if metric not in QUESTIONS:
        raise UserError(f"{path} has no '{metric}'; it has {', '.join(QUESTIONS)}.")
    for record in _lines(path):
        said, truth = record.get("response"), record["ground_truth"]
        if said is None:  # an error is no answer
            value = 0.0
        elif metric == "token_f1":
            value = token_f1(said, truth)
        else:
            value = float(exact_match(said, truth, "strict" if metric == "exact_match_strict" else "squad"))
        right = bool(value) if metric != "token_f1" else None
        case = (record["sample_id"], record["image"], record["question"])
        domain = f"{'with' if record['need_external_knowledge'] else 'without'}_external_knowledge"
        yield TestedRow(case, record["image"], domain, "", metric, value, 1.0, right)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that `test` wrote."""
    return [entry.value for entry in read_entries(path) if isinstance(entry, Entry)]
