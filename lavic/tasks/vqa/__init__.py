"""Visual question answering: a question about an image in, a short answer out, judged by exact match."""

from lavic.tasks.vqa.data import VqaData
from lavic.tasks.vqa.task import Vqa

__all__ = ["Vqa", "VqaData"]
