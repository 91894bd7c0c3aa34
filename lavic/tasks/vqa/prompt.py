"""A question as the model reads it, the same in fit, validate, test and predict.

One user turn: instruction, image, what is known of the image from outside, question; a newline between the parts.
"""

from collections.abc import Callable
from dataclasses import dataclass

IMAGE = "<image>"
INSTRUCTION = "You are an expert art historian. Answer the questions you will be asked about the image."


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image.

    Attributes:
        sample_id: its place in the file, from 0.
        image: file name.
        question: as written.
        answer: as written; the only right one.
        need_external_knowledge: whether the image alone does not tell.
        description: what is known of the image from outside; None where nothing is shown.
    """

    sample_id: int
    image: str
    question: str
    answer: str
    need_external_knowledge: bool
    description: str | None = None


def question_prompt(
    question: Question,
    instruction: str = INSTRUCTION,
    *,
    image: bool = True,
    description: bool = True,
    cleaned: Callable[[str], str] = str,
) -> str:
    """The user's turn; the image stands in it as `<image>`.

    Args:
        question: what is asked.
        instruction: what stands before the image; nothing is written for an empty one.
        image: false leaves the image out.
        description: false leaves what is known from outside out.
        cleaned: makes a text that users wrote harmless, so that an `<image>` in it is no image.
    """
    parts = [
        cleaned(instruction).strip(),
        IMAGE if image else "",
        cleaned(question.description or "").strip() if description else "",
        cleaned(question.question).strip(),
    ]
    return "\n".join(filter(None, parts))
