"""The undistilled LLaVA says what it sees in an item's image, with all its visual tokens: stage 1's teacher.

The published code holds the descriptions but not the prompt that they were written with. That some of them speak of
"the product's title" says that it held the title; the prompt here is the published one of stage 1, word for word, with
the image in the place of the five placeholders, so that teacher and student answer the same question.

Shapes: V views in a batch, S their side in pixels, N visual tokens of an image, D the language model's width.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavic.errors import UserError
from lavic.model.generation import decode_greedily
from lavic.model.prefix_reuse import FrozenPrefix
from lavic.model.text import PLACEHOLDERS, TEMPLATES, without_special_tokens
from lavic.model.views import cut_views
from lavic.model.visual_tokens import Normalise

PROMPT: str = TEMPLATES["distillation"].replace("".join(PLACEHOLDERS), "{image}")
MAX_NEW_TOKENS = 128
_SENTENCE = re.compile(r"[.!?\u3002\uff01\uff1f][\"')\]\u201d\u2019]*(?=\s|$)|[\u3002\uff01\uff1f]")


@dataclass(frozen=True, slots=True)
class Seen:
    """An image and its prompt, ready for the model; made in a loader's worker.

    Attributes:
        before: token ids of the prompt up to the image, BOS included.
        after: those behind it.
        views: (views, 3, S, S) uint8.
        height, width: of the image, in pixels.
    """

    before: list[int]
    after: list[int]
    views: Tensor
    height: int
    width: int


class Prompter:
    """Titles and images -> what the model is given.

    Args:
        processor: the checkpoint's own, with its native grids.
        prompt: with `{image}` once, and `{title}` once or not at all.

    Raises:
        UserError: the prompt has no place for the image.
    """

    def __init__(self, processor: Any, prompt: str = PROMPT) -> None:
        if prompt.count("{image}") != 1 or prompt.count("{title}") > 1:
            raise UserError("The prompt must hold {image} once, and {title} once or not at all; mend it.")
        self.processor, self.prompt = processor, prompt

    def see(self, title: str, image: Any) -> Seen:
        """The prompt for a PIL image."""
        tokenizer = self.processor.tokenizer
        before, _, after = self.text(title).partition(self.processor.image_token)
        ids = tokenizer(before + self.processor.image_token + after)["input_ids"]
        place = ids.index(tokenizer.convert_tokens_to_ids(self.processor.image_token))
        views = cut_views(self.processor.image_processor, image)
        return Seen(ids[:place], ids[place + 1 :], views, image.height, image.width)

    def text(self, title: str) -> str:
        """The prompt as a text, with the processor's token for the image."""
        title = without_special_tokens(self.processor.tokenizer, title).replace(self.processor.image_token, "")
        return self.prompt.replace("{image}", self.processor.image_token).replace("{title}", title)

    def constant_start(self) -> list[int]:
        """Token ids that every prompt starts with; the last before a title is left out, for it may merge with it."""
        start = re.split(r"\{title\}|\{image\}", self.prompt)[0]
        return list(self.processor.tokenizer(start)["input_ids"])[:-1]


class Describer:
    """A loaded LLaVA-v1.6 that describes.

    Args:
        llava: the model, frozen and in evaluation mode.
        prompter: makes its prompts.
        max_new_tokens: tokens of a description at most, its end counted.
    """

    def __init__(self, llava: Any, prompter: Prompter, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self._llava, self._tokenizer, self._max = llava, prompter.processor.tokenizer, max_new_tokens
        self._device = llava.get_input_embeddings().weight.device
        self._normalise = Normalise(prompter.processor.image_processor).to(self._device)
        self._prefix = FrozenPrefix(prompter.constant_start())
        ends = llava.generation_config.eos_token_id
        ends = self._tokenizer.eos_token_id if ends is None else ends
        self._ends = set(ends) if isinstance(ends, list) else {int(ends)}

    @torch.inference_mode()
    def describe(self, batch: Sequence[Seen]) -> list[str]:
        """What the model says of each image."""
        kept = self._agreeing(batch)
        past = [(k[:, :, :kept], v[:, :, :kept]) for k, v in self._prefix.keys_values(self._llava)] if kept else []
        embed = self._llava.get_input_embeddings()
        rows = [
            torch.cat([embed(self._ids(seen.before[kept:])), tokens, embed(self._ids(seen.after))])
            for seen, tokens in zip(batch, self.visual_tokens(batch), strict=True)
        ]
        longest = max(map(len, rows))
        embeds = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self._device)
        answers = decode_greedily(self._llava, embeds, mask, self._max, self._ends, past)
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [
            text.strip() if len(answer) < self._max else whole_sentences(text)
            for text, answer in zip(texts, answers, strict=True)
        ]

    def visual_tokens(self, batch: Sequence[Seen]) -> list[Tensor]:
        """All visual tokens of each image as LLaVA-v1.6 packs them: (N, D) each."""
        views = torch.cat([seen.views for seen in batch]).to(self._device)  # (V, 3, S, S)
        pixels = self._normalise(views, self._llava.dtype)
        sizes = torch.tensor([[seen.height, seen.width] for seen in batch], device=self._device)
        features: list[Tensor] = list(self._llava.model.get_image_features(pixels, sizes).pooler_output)
        return features

    def _agreeing(self, batch: Sequence[Seen]) -> int:
        """How many tokens of the constant start every prompt begins with; at least one is left for each row."""
        start = self._prefix.ids
        count = min(len(start), *(len(seen.before) for seen in batch))
        while count and any(seen.before[:count] != start[:count] for seen in batch):
            count -= 1
        return count

    def _ids(self, ids: list[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self._device)


def whole_sentences(text: str) -> str:
    """A text that was cut off, up to the end of its last whole sentence; all of it if there is none."""
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    return (text[: ends[-1]] if ends else text).strip()
