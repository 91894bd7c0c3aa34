"""Questions and images -> what the model is given, by the checkpoint's own chat template.

A prompt's tokens are the beginning of the tokens of the same prompt with its answer; the answer and its end token are
supervised, nothing else. What a template writes between its prompt and an answer (a space, for one) belongs to the
answer, so that a prompt never ends in half a token.

Shapes: B questions, T tokens, V views of all their images, S a view's side.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from lavic.batching.padding import pad, pad_left
from lavic.catalogue.records import Turn
from lavic.errors import UserError
from lavic.model.chat_text import ChatText, stop_ids
from lavic.model.image_entry import ImageEntry, ImageReader
from lavic.model.loading import load_config
from lavic.model.multimodal_batch import MultimodalBatch
from lavic.model.rendered_template import RenderedTemplate
from lavic.model.templates import template_for
from lavic.tasks.vqa.prompt import Question, question_turn

PROBE = (Turn("user", "question"), Turn("assistant", "answer"))


def question_reader(name: str) -> ImageReader:
    """Cuts and counts an image as a checkpoint's own patch tokens are."""
    return ImageReader(name, load_config(name), ImageEntry(tokens="patch"))


class QuestionEncoder:
    """Makes prompts and targets.

    Args:
        reader: of `question_reader`.
        instruction: what stands before every image.
        max_length: tokens of a prompt and its answer at most, image tokens among them; longer ones lose the end of
            their description.
    """

    def __init__(self, reader: ImageReader, instruction: str, max_length: int) -> None:
        self.reader, self.instruction, self.max_length = reader, instruction, max_length
        self.processor = reader.processor
        self.tokenizer = self.processor.tokenizer
        self.pad_id = self.tokenizer.pad_token_id
        if self.pad_id is None:
            self.pad_id = self.tokenizer.eos_token_id
        own = self.processor.chat_template or self.tokenizer.chat_template
        owner = str(self.tokenizer.name_or_path)
        self.template = RenderedTemplate(own or template_for(self.tokenizer).jinja(), owner, self.tokenizer)
        end = list(self.template.segments(PROBE, None, self.tokenizer))[-1].text
        self.end_id = int(self.tokenizer(end, add_special_tokens=False)["input_ids"][-1])
        self.chat = ChatText(self.tokenizer, self.template, stop_ids(reader.name, self.tokenizer))

    def prompt_text(self, question: Question, image: bool = True, description: bool = True) -> str:
        """The prompt as the model reads it, the image as one token."""
        turn = question_turn(question, self.instruction, image=image, description=description)
        return "".join(segment.text for segment in self.template.segments([turn], None, self.tokenizer))

    def encode(
        self, question: Question, size: tuple[int, int] | None, answer: bool, description: bool = True
    ) -> tuple[list[int], int]:
        """Token ids of the prompt, with its answer and end token if asked for, and where the answer begins.

        Args:
            question: what is asked.
            size: of its image, (width, height) in pixels; None leaves the image out.
            answer: whether the answer follows.
            description: whether what is known from outside is shown.

        Raises:
            UserError: it is longer than `max_length` even without its description.
        """
        ids, start = self._encode(question, size, answer, description)
        while (excess := len(ids) - self.max_length) > 0:
            shown = question.description if description else None
            if not shown:
                raise UserError(
                    f"max_length is {self.max_length}, but question {question.sample_id} needs {len(ids)} tokens with"
                    " its image; set max_length to that at least."
                )
            # a token has at least one letter
            question = replace(question, description=shown[: max(0, len(shown) - excess)].rstrip())
            ids, start = self._encode(question, size, answer, description)
        return ids, start

    def answer_tokens(self, answers: Sequence[str]) -> list[int]:
        """Supervised tokens of each answer, its end token among them."""
        return self.chat.answer_lengths(answers)

    def batch(
        self,
        questions: Sequence[Question],
        images: Sequence[Image.Image] | None,
        *,
        answers: bool,
        description: bool = True,
        ghost: bool = False,
    ) -> MultimodalBatch:
        """A batch: with answers padded on the right and with `labels`, without them on the left, to generate from."""
        sizes = [image.size for image in images or ()]
        shown: Sequence[tuple[int, int] | None] = sizes or [None] * len(questions)
        encoded = [
            self.encode(question, size, answers, description) for question, size in zip(questions, shown, strict=True)
        ]
        sequences = [ids for ids, _ in encoded]
        starts = [start for _, start in encoded]
        padded = pad(sequences, starts, self.pad_id, ghost) if answers else pad_left(sequences, self.pad_id)
        batch: MultimodalBatch = {**padded}
        if images is not None:
            batch["views"] = torch.cat([self.reader.cut(image) for image in images])
            batch["sizes"] = sizes
            batch["image_tokens"] = sum(self.reader.count(*size) for size in sizes)
        return batch

    def _encode(
        self, question: Question, size: tuple[int, int] | None, answer: bool, description: bool
    ) -> tuple[list[int], int]:
        turn = question_turn(question, self.instruction, image=size is not None, description=description)
        turns = [turn, Turn("assistant", question.answer)] if answer else [turn]
        encoded = self.chat.encode(turns, [] if size is None else [self.reader.count(*size)])
        if isinstance(encoded, str):  # an answer without a letter: its end alone would be learned
            raise UserError(f"Question {question.sample_id} cannot be used ({encoded}); mend its answer.")
        return encoded.input_ids, encoded.spans[0][0] if encoded.spans else len(encoded.input_ids)
