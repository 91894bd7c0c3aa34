"""What training asks of a task, whatever it is: its metrics, and a few samples to look at.

RunLog, BestAdapter, EarlyStop, the model card, the monitor and the report read a task's `TaskReport` and know no
metric by name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from lavic.errors import UserError


@dataclass(frozen=True)
class Metric:
    """One number of a validation.

    Attributes:
        name: as it is logged, such as `val_loss`.
        label: as people read it.
        unit: what it is counted in; "" for a share or a ratio.
        form: how it is written, as in `format`.
        better: the direction that is an improvement; None where neither is.
    """

    name: str
    label: str
    unit: str = ""
    form: str = ".4f"
    better: Literal["lower", "higher"] | None = None

    def text(self, value: float) -> str:
        """`label value unit`."""
        return f"{self.label} {value:{self.form}} {self.unit}".rstrip()

    def improves(self, value: float, best: float, by: float = 0.0) -> bool:
        """Whether `value` is better than `best` by more than `by`; one that is not finite never is."""
        gain = best - value if self.better == "lower" else value - best
        return math.isfinite(value) and gain > by

    @property
    def worst(self) -> float:
        """What any finite value improves upon."""
        return math.inf if self.better == "lower" else -math.inf


VAL_LOSS = Metric("val_loss", "val_loss", "nats a token", better="lower")
VAL_PERPLEXITY = Metric("val_perplexity", "perplexity", form=".2f", better="lower")
VAL_SAMPLES = Metric("val_samples", "samples", form=".0f")
VISUAL_GAIN = Metric("visual_gain", "visual_gain", "nats a token", better="higher")


@dataclass(frozen=True)
class TaskReport:
    """What a task measures.

    Attributes:
        task: its name, one word, as its YAML file and folder have it.
        title: what a model card calls the adapter.
        metrics: all that a validation logs, the ones to be shown first before the others.
        monitored: name of the metric whose best value is kept and waited for.
        headline: how many of the first metrics stand in the line of an epoch.
    """

    task: str
    title: str
    metrics: tuple[Metric, ...]
    monitored: str = "val_loss"
    headline: int = 3

    def metric(self, name: str) -> Metric:
        """The metric of that name.

        Raises:
            UserError: the task measures no such thing.
        """
        found = next((metric for metric in self.metrics if metric.name == name), None)
        if found is None:
            known = ", ".join(metric.name for metric in self.metrics)
            raise UserError(f"The task {self.task} does not measure '{name}'; it has {known}.")
        return found

    @property
    def best_by(self) -> Metric:
        """The monitored metric."""
        return self.metric(self.monitored)

    def known(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Those of the task's metrics that `values` holds, in the report's order, as floats."""
        return {metric.name: float(values[metric.name]) for metric in self.metrics if metric.name in values}

    def headline_text(self, values: Mapping[str, float]) -> str:
        """The first metrics as one line; units that repeat are said once, at their last."""
        shown = [metric for metric in self.metrics[: self.headline] if metric.name in values]
        later = [{other.unit for other in shown[i + 1 :]} for i in range(len(shown))]
        return ", ".join(
            metric.text(values[metric.name]).removesuffix(f" {metric.unit}" if metric.unit in after else "")
            for metric, after in zip(shown, later, strict=True)
        )

    def described(self) -> list[dict[str, Any]]:
        """The metrics as `run.json` holds them, for readers without torch; how many samples were asked is none."""
        shown = [metric for metric in self.metrics if metric != VAL_SAMPLES]
        return [{**asdict(metric), "monitored": metric.name == self.monitored} for metric in shown]


UNKNOWN_TASK = TaskReport("unknown", "adapter", (VAL_LOSS,))


def report_of(module: object) -> TaskReport:
    """A task's report; one with val_loss alone where a module is no task."""
    report = getattr(module, "report", UNKNOWN_TASK)
    return report if isinstance(report, TaskReport) else UNKNOWN_TASK


@dataclass(frozen=True)
class ShownSample:
    """A validation sample for people to look at.

    Attributes:
        batch: what the task's `answer` takes; holds this sample alone.
        image: (3, height, width) uint8; None for text alone.
        fields: what identifies it and was asked, by name.
        target: the supervised text.
    """

    batch: Any
    image: Tensor | None
    fields: dict[str, Any]
    target: str


@runtime_checkable
class ShowsSamples(Protocol):
    """A data module that can show single validation samples."""

    def shown_samples(self, count: int) -> Sequence[ShownSample]:
        """`count` validation samples, chosen by chance but the same each time."""
