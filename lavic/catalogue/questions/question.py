"""A question about an image, whatever benchmark it is from: what is asked, and what counts as right."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Truth:
    """What counts as right.

    Attributes:
        answers: as published, the same one as often as people gave it; () where the file has none.
        choices: what is chosen from, in the order that the model is shown.
        correct: which of them is right, from 0.
        answerable: whether the image answers the question at all; None where the benchmark does not say.
        counted: whether the benchmark counts the answer in its own words; A-OKVQA does not count difficult ones, nor
            GQA those outside its balanced part.
    """

    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    correct: int | None = None
    answerable: bool | None = None
    counted: bool = True

    @property
    def is_known(self) -> bool:
        """Whether there is anything to compare an answer with; a benchmark's test files have nothing."""
        return bool(self.answers) or self.correct is not None


@dataclass(frozen=True, slots=True)
class VisualQuestion:
    """One question of a benchmark's file.

    Attributes:
        id: as published, always text.
        image: file name in the folder of images; None where a question has no image.
        text: the question.
        truth: what counts as right.
        context: what is to be read before the question: ScienceQA's hint.
        explanation: why the answer is right: A-OKVQA's rationale, ScienceQA's lecture and solution.
        groups: what the benchmark breaks its numbers down by, such as `{"answer_type": ("number",)}`; a question may
            belong to several groups of a kind.
    """

    id: str
    image: str | None
    text: str
    truth: Truth
    context: str = ""
    explanation: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
