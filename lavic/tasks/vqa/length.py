"""Which questions are too long to be asked, found when their table is made and not when a run comes to them."""

from dataclasses import asdict
from typing import Any

from lavic.errors import UserError
from lavic.tasks.vqa.encoding import QuestionEncoder
from lavic.tasks.vqa.prompt import Question

SLACK = 8  # tokens that line breaks and spaces between the texts of a prompt may add


class LengthLimit:
    """Tells which questions are too long to be asked, even without what is known of their image from outside.

    Args:
        encoder: makes the prompts, and knows the limit.
        answer: whether the answer is read too, as when it is learned or its loss computed.
    """

    def __init__(self, encoder: QuestionEncoder, answer: bool) -> None:
        self.encoder, self.answer = encoder, answer
        self._counts: dict[tuple[int, int], int] = {}  # image tokens by size
        shortest = Question(0, "", ".", ".", False)
        try:
            self._around = len(encoder.encode(shortest, None, True)[0]) + SLACK
        except UserError:
            self._around = encoder.max_length  # then each is tokenised, and too long

    def key(self) -> list[Any]:
        """All that the verdicts depend on."""
        encoder = self.encoder
        tokenizer = encoder.tokenizer
        return [
            encoder.max_length, self.answer, encoder.prompt_text(Question(0, "", ".", ".", False), False),
            tokenizer.backend_tokenizer.to_str(), encoder.reader.config.to_json_string(), asdict(encoder.reader.entry),
        ]  # fmt: skip

    def exceeded_by(self, question: Question, size: tuple[int, int]) -> bool:
        """Says whether a question's prompt is too long with its image of that size, (width, height) in pixels."""
        if size not in self._counts:
            self._counts[size] = self.encoder.reader.count(*size)
        texts = question.question + question.answer
        if texts.isascii() and self._around + len(texts) + self._counts[size] <= self.encoder.max_length:
            return False  # nearly all, and without tokenising: a token has at least one letter
        try:
            self.encoder.encode(question, size, self.answer)
        except UserError:
            return True
        return False
