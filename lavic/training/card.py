"""The README.md in an adapter's directory: what it is, its metrics, its data, how to load it."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from lavic.model.parts import count_trainable
from lavic.training.protocols import Metric, report_of

TEMPLATE = "card.md.j2"


@dataclass(frozen=True)
class CardParts:
    """What a task says of itself on its card, in Markdown; `loading` is Python.

    Attributes:
        what: what the adapter is, and on which part of which model.
        notes: what the metrics mean.
        data: what it was trained on.
        loading: plain PEFT and transformers, without LaViC.
    """

    what: str
    notes: str
    data: str
    loading: str


def model_card(task: Any, data: Any, metrics: Mapping[str, float]) -> str:
    """The card of a task's adapter as it stands, with the numbers of the validation that chose it."""
    report = report_of(task)
    known = {metric.name: metric for metric in report.metrics}
    shown = [
        (known.get(name, Metric(name, name)).label, f"{value:.6g}", known.get(name, Metric(name, name)).unit)
        for name, value in metrics.items()
    ]
    versions = {package: version(package) for package in ("torch", "transformers", "peft", "lightning")}
    versions["python"] = platform.python_version()
    template = files("lavic.training").joinpath(TEMPLATE).read_text(encoding="utf-8")
    page = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True).from_string(template)
    return page.render(
        base=task.base.name,
        task=report.task,
        title=report.title,
        parts=task.card_parts(data),
        trainable=count_trainable(task),
        metrics=shown,
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
    )
