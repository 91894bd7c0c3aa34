"""A written metrics.json beside what the independent script finds in the written answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.vqa.independent_vqa_metrics import numbers

GROUPS = {"all": (True, False), "with_external_knowledge": (True,), "without_external_knowledge": (False,)}


def assert_numbers_are_the_scripts(results: Path) -> dict[str, Any]:
    """Both modes, all breakdowns, all controls, all intervals; returns the metrics."""
    metrics: dict[str, Any] = json.loads((results / "metrics.json").read_text())
    rows = results / "detailed_results.jsonl"
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    said = [line for line in lines if line["response"] is not None]
    assert (metrics["total_samples"], metrics["errors"]) == (len(said), len(lines) - len(said))
    for group, needs in GROUPS.items():
        assert (group == "all" or group in metrics) == any(line["need_external_knowledge"] in needs for line in said)
        if group != "all" and group not in metrics:
            continue
        ours = metrics if group == "all" else metrics[group]
        for one in (ours, ours["other"]):
            script = numbers(rows, one["mode"], needs)
            found = [one["exact_match_score"], *one["exact_match_interval"]]
            assert found == pytest.approx(script["exact_match"], abs=1e-12), (group, one["mode"])
            assert one["correct_predictions"] == round(script["exact_match"][0] * script["samples"])
        script = numbers(rows, ours["mode"], needs)
        assert [ours["token_f1"], *ours["token_f1_interval"]] == pytest.approx(script["token_f1"], abs=1e-12), group
        assert ours["ceiling"] == pytest.approx(script["ceiling"], abs=1e-12)
        assert ours["majority"]["exact_match_score"] == pytest.approx(script["majority"], abs=1e-12)
        assert ours["correct_predictions"] + ours["incorrect_predictions"] == script["samples"]
        assert ours.get("samples", metrics["total_samples"]) == script["samples"]
        asked = {name for line in said if line["need_external_knowledge"] in needs for name in line}
        controls = ours.get("controls", {})
        assert {f"response_{name}" for name in controls} == {name for name in asked if name.startswith("response_")}
        for name, control in controls.items():
            script = numbers(rows, ours["mode"], needs, f"response_{name}")
            found = [control["exact_match_score"], *control["exact_match_interval"]]
            assert found == pytest.approx(script["exact_match"], abs=1e-12), (group, name)
            assert control["samples"] == script["samples"]
    return metrics
