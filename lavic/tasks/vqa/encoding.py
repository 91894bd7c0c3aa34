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
from lavic.errors import UserError
from lavic.model.image_entry import ImageEntry, ImageReader
from lavic.model.loading import load_config
from lavic.model.multimodal_batch import MultimodalBatch
from lavic.model.templates import template_for
from lavic.model.text import encode, without_special_tokens
from lavic.tasks.vqa.prompt import IMAGE, Question, question_prompt

BLOCK = 1024  # texts tokenised at a time
PROBE = "answer"


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
        self.between, self.end_id = self._between_and_end()

    def prompt_text(self, question: Question, image: bool = True, description: bool = True) -> str:
        """The prompt as the model reads it, the image as one token."""
        turn = question_prompt(question, self.instruction, image=image, description=description, cleaned=self._cleaned)
        return self._rendered(turn)

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
        prompt = self._rendered("question")
        counts: list[int] = []
        for begin in range(0, len(answers), BLOCK):
            block = answers[begin : begin + BLOCK]
            counts += [len(ids) - start for ids, start in self._joined([prompt] * len(block), block)]
        return counts

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
        prompt = self.prompt_text(question, size is not None, description)
        if size is not None:
            prompt = prompt.replace(IMAGE, self.processor.image_token * self.reader.count(*size))
        if not answer:
            ids = list(self.tokenizer(prompt)["input_ids"])
            return ids, len(ids)
        [joined] = self._joined([prompt], [question.answer])
        return joined

    def _joined(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[list[int], int]]:
        """The tokens of each prompt and its answer as one text, with the end token, and the answer's first."""
        targets = [self.between + self._cleaned(answer).strip() for answer in answers]
        encoded = encode(self.tokenizer, prompts, targets, self.end_id)
        return [(one.input_ids, one.target_start) for one in encoded]

    def _rendered(self, turn: str, answer: str | None = None) -> str:
        """A conversation by the checkpoint's template, without the BOS that the tokenizer adds."""
        template = self.processor.chat_template or self.tokenizer.chat_template or template_for(self.tokenizer).jinja()
        text = ""
        for typed in (True, False):  # templates of language models read plain strings
            messages = [{"role": "user", "content": turn}]
            if answer is not None:
                messages.append({"role": "assistant", "content": answer})
            if typed:
                messages = [
                    {**m, "content": [{"type": "text", "text": m["content"]}]}  # type: ignore[dict-item]
                    for m in messages
                ]
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=answer is None
            )
            if turn in text and "[{'type'" not in text:
                break
        else:
            raise UserError("The checkpoint's chat template does not write the user's turn; give another checkpoint.")
        bos = self.tokenizer.bos_token
        text = str(text).removeprefix(bos or "")
        return text if answer is not None else text.rstrip(" ")

    def _between_and_end(self) -> tuple[str, int]:
        """What the template writes before an answer, and the token that ends one."""
        prompt, whole = self._rendered("question"), self._rendered("question", PROBE)
        between, _, after = whole.removeprefix(prompt).partition(PROBE)
        if not whole.startswith(prompt) or between.strip():
            between = " "
        special = {token.content: i for i, token in self.tokenizer.added_tokens_decoder.items()}
        ending = after.strip()
        found = [i for content, i in special.items() if content and ending.startswith(content)]
        return between, found[0] if found else int(self.tokenizer.eos_token_id)

    def _cleaned(self, text: str) -> str:
        return without_special_tokens(self.tokenizer, text).replace(self.processor.image_token, "")
