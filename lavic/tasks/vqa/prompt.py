"""A question as the model reads it, the same in fit, validate, test and predict.

One user turn: instruction, image, what is known of the image from outside, question; a newline between the parts.
"""

from dataclasses import dataclass

from lavic.catalogue.records import Turn

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


def question_turn(
    question: Question, instruction: str = INSTRUCTION, *, image: bool = True, description: bool = True
) -> Turn:
    """The user's turn: instruction, image, what is known of the image from outside, question.

    Args:
        question: what is asked.
        instruction: what stands before the image; nothing is written for an empty one.
        image: false leaves the image out.
        description: false leaves what is known from outside out.
    """
    known = (question.description or "").strip() if description else ""
    before = instruction.strip()
    after = "\n".join(filter(None, (known, question.question.strip())))
    if not image:
        return Turn("user", "\n".join(filter(None, (before, after))))
    before = f"{before}\n" if before else ""
    return Turn("user", before + (f"\n{after}" if after else ""), images=1, place=len(before))
