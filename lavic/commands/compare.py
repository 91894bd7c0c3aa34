"""`python -m lavic compare RUN RUN...`: systems side by side on the same conversations or questions.

A RUN is the output directory of a `test`; several seeds of one system are joined by commas (`out_a1,out_a2`).
"""

import json
import sys
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lavic.commands.options import OptionParser
from lavic.errors import UserError
from lavic.evaluation.comparison import mcnemar, paired_bootstrap, spread
from lavic.evaluation.intervals import Floats, intervals
from lavic.evaluation.tested_rows import RESULTS, TestedRow, read_tested_rows
from lavic.ranges import check_ranges

ALL = "all"


@dataclass(frozen=True)
class System:
    """One or several seeds of a system: for each, its rows by cell of the table and by case."""

    name: str
    seeds: tuple[dict[tuple[str, str], dict[Hashable, TestedRow]], ...]


def main(arguments: list[str]) -> None:
    """Prints the table and the tests between each two systems."""
    parser = OptionParser(prog="python -m lavic compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output directory of a test; seeds joined by commas")
    parser.add_argument("--metric", default=None, help="hit_ratio@1 (default), mrr, ndcg, ...; exact_match, token_f1")
    parser.add_argument("--way", default="scored", help="how stage 2 chose: scored (default), generated, constrained")
    parser.add_argument("--resamples", type=int, default=2000, help="draws of the bootstrap (default: 2000)")
    parser.add_argument("--seed", type=int, default=42, help="of the draws (default: 42)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse(arguments)
    check_ranges("--", resamples=options.resamples, seed=options.seed)
    systems = [_read(run, options.way, options.metric) for run in options.runs]
    result = compare(systems, options.resamples, options.seed)
    for line in result["left_out"]:
        print(line, file=sys.stderr)
    print(json.dumps(result, indent=1) if options.json else table(result))


def compare(systems: Sequence[System], resamples: int = 2000, seed: int = 42) -> dict[str, Any]:
    """Every number of the comparison, ready for JSON.

    A cell is a domain and its candidates; all domains together are one too. Each cell holds the cases that all
    systems and seeds have answered.

    Raises:
        UserError: no case is common to all.
    """
    names = [system.name for system in systems]
    cells: list[dict[str, Any]] = []
    left_out: list[str] = []
    for cell in dict.fromkeys(cell for system in systems for rows in system.seeds for cell in rows):
        everyone = [rows.get(cell, {}) for system in systems for rows in system.seeds]
        common = [case for case in everyone[0] if all(case in rows for rows in everyone)]
        missing = max(len(rows) for rows in everyone) - len(common)
        if missing and cell[0] != ALL:
            left_out.append(f"{' / '.join(filter(None, cell))}: {missing} cases are not in every run and are left out")
        if common:
            cells.append(_cell(cell, systems, common, resamples, seed))
    if not cells:
        raise UserError(
            f"{', '.join(names)} have no conversation or question in common; compare tests of one data set."
        )
    metric = next(iter(next(iter(systems[0].seeds[0].values())).values())).metric
    return {"metric": metric, "systems": names, "left_out": left_out, "cells": cells}


def table(result: dict[str, Any]) -> str:
    """The comparison as text: a line for each system with a column for each cell, then the tests."""
    cells = result["cells"]
    heads = [" / ".join(filter(None, (cell["domain"], cell["candidates"]))) for cell in cells]
    columns = [["", *result["systems"]]]
    for head, cell in zip(heads, cells, strict=True):
        columns.append([f"{head} (n={cell['cases']})", *(_value_text(value) for value in cell["values"])])
    widths = [max(map(len, column)) for column in columns]
    lines = [result["metric"] + ", with 95% bootstrap intervals over threads or images"]
    for row in zip(*columns, strict=True):
        lines.append("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for head, cell in zip(heads, cells, strict=True):
        lines += [f"{head}: {_test_text(test)}" for test in cell["tests"]]
    return "\n".join(lines)


def _read(run: str, way: str, metric: str | None) -> System:
    seeds = []
    for folder in filter(None, run.split(",")):
        rows: dict[tuple[str, str], dict[Hashable, TestedRow]] = {}
        for row in read_tested_rows(Path(folder), way, metric):
            for domain in dict.fromkeys((row.domain, ALL)):
                rows.setdefault((domain, row.candidates), {})[row.case] = row
        domains = {domain for domain, _ in rows} - {ALL}
        if len(domains) == 1:  # the same as all of them
            rows = {cell: cases for cell, cases in rows.items() if cell[0] != ALL}
        seeds.append(rows)
    if not seeds:
        raise UserError(f"'{run}' names no run; give an output directory that holds one of {', '.join(RESULTS)}.")
    return System(run, tuple(seeds))


def _cell(
    cell: tuple[str, str], systems: Sequence[System], common: Sequence[Hashable], resamples: int, seed: int
) -> dict[str, Any]:
    rows = [[[seeds[cell][case] for case in common] for seeds in system.seeds] for system in systems]
    clusters = [row.cluster for row in rows[0][0]]
    columns = [_mean_column(several) for several in rows]
    values = []
    for several, column in zip(rows, columns, strict=True):
        interval = intervals({"value": column}, clusters, resamples, seed)["value"]
        values.append({**asdict(interval), "seeds": asdict(spread([_ratio(_mean_column([one])) for one in several]))})
    tests = []
    for i, j in combinations(range(len(systems)), 2):
        test: dict[str, Any] = {"first": systems[i].name, "second": systems[j].name}
        test["difference"] = asdict(paired_bootstrap(columns[i], columns[j], clusters, resamples, seed))
        if len(rows[i]) == len(rows[j]) == 1 and all(row.is_right is not None for row in rows[i][0] + rows[j][0]):
            right = [[bool(row.is_right) for row in rows[k][0]] for k in (i, j)]
            test["mcnemar"] = asdict(mcnemar(*right))
        tests.append(test)
    counts = {"cases": len(common), "clusters": len(set(clusters))}
    return {"domain": cell[0], "candidates": cell[1], **counts, "values": values, "tests": tests}


def _mean_column(seeds: Sequence[Sequence[TestedRow]]) -> tuple[Floats, Floats]:
    """Numerators, the mean over seeds, and denominators by case."""
    above = np.mean([[row.numerator for row in rows] for rows in seeds], axis=0)
    return above, np.array([row.denominator for row in seeds[0]], dtype=np.float64)


def _ratio(column: tuple[Floats, Floats]) -> float:
    return float(column[0].sum() / column[1].sum())


def _value_text(value: dict[str, Any]) -> str:
    text = f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
    seeds = value["seeds"]
    return text if seeds["deviation"] is None else f"{text} sd {seeds['deviation']:.4f} of {seeds['seeds']} seeds"


def _test_text(test: dict[str, Any]) -> str:
    d, m = test["difference"], test.get("mcnemar")
    text = f"{test['first']} - {test['second']} = {d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}], p {d['p']:.4g}"
    if m:
        text += f"; McNemar {m['only_first']} : {m['only_second']}, exact p {m['p_exact']:.4g}"
        text += f", asymptotic p {m['p_asymptotic']:.4g}"
    return text
