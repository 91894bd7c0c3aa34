"""Stage 1, visual knowledge self-distillation."""

from lavic.tasks.distillation.data import DistillationData
from lavic.tasks.distillation.task import Distillation

__all__ = ["Distillation", "DistillationData"]
