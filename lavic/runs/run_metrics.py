"""What a run's task measures, as `run.json` says it: names, units, forms, directions; no metric is known here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lavic.runs.run_files import Run

OLD_RUN: Sequence[dict[str, Any]] = (
    {"name": "val_loss", "label": "val_loss", "unit": "nats a token", "better": "lower", "monitored": True},
)


@dataclass(frozen=True)
class RunMetric:
    """One number of a run's validations."""

    name: str
    label: str
    unit: str = ""
    form: str = ".4f"
    better: str | None = None
    monitored: bool = False

    def text(self, value: Any) -> str:
        """The value as people read it; "-" where there is none."""
        return format(value, self.form) if isinstance(value, int | float) else "-"

    def best(self, run: Run) -> dict[str, Any]:
        """The validation in which it was best, or an empty dict."""
        known = [e for e in run.of("validation") if math.isfinite(e.get(self.name, math.nan))]
        chosen = max if self.better == "higher" else min
        return chosen(known, key=lambda event: event[self.name], default={})


def run_metrics(run: Run) -> list[RunMetric]:
    """A run's metrics, the ones to be shown first before the others."""
    described: Sequence[dict[str, Any]] = run.about.get("metrics") or OLD_RUN
    fields = RunMetric.__dataclass_fields__
    return [RunMetric(**{name: entry[name] for name in fields if name in entry}) for entry in described]


def monitored(run: Run) -> RunMetric:
    """The one by which the run keeps its best adapter."""
    metrics = run_metrics(run)
    return next((metric for metric in metrics if metric.monitored), metrics[0])


def learning_rates(train: dict[str, Any]) -> dict[str, float | None]:
    """A `train` event's learning rates by part; by "" where all parts have the same."""
    return train.get("lr_by_part") or ({"": train["lr"]} if train.get("lr") is not None else {})


def left_out_text(run: Run) -> str:
    """How many samples were left out, and why."""
    reasons = run.about.get("skipped") or {}
    listed = f" ({', '.join(f'{count} {reason}' for reason, count in reasons.items())})" if reasons else ""
    return f"{sum(reasons.values())}{listed}"
