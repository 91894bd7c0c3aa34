"""What the toy's pretraining asks besides descriptions: which of several products fits a wish, answered by its ID.

The prompt is stage 2's, about other products than the sample's, with an ID drawn anew each time, so that no ID can be
known by heart. Looking an image up and copying an ID from a list is what a grown language model can do and a small one
hardly discovers from one answer a prompt. So it is asked of every candidate too, silently, at its visual tokens: what
of the wish does it meet, and what is its ID? The answers are read one layer before the last, which leaves the last one
to choose.

Shapes: B prompts, K candidates each, five visual tokens a candidate, D the language model's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from lavic.batching.padding import IGNORED, pad
from lavic.demo.conversations import converse, wish
from lavic.demo.products import COLOURS, ID_END, ID_PIECES, ID_START, PATTERNS, Photograph, Product
from lavic.model.processor import placeholder_ids
from lavic.model.text import PLACEHOLDERS, encode
from lavic.model.visual_tokens import fill_placeholders, project
from lavic.tasks.recommendation.prompt import Shown, recommendation_prompt

VIEWS = len(PLACEHOLDERS)
CANDIDATE_TOKENS, CONVERSATION_TOKENS, INSTRUCTION_TOKENS = 22, 40, 100  # about; for the size of a batch
BATCH_TOKENS = 3000

NOTHING, COLOUR, PATTERN, ALL = range(4)  # what a candidate meets of a wish


@dataclass(frozen=True)
class Choice:
    """A prompt about K of the images, and what is to be answered.

    Attributes:
        prompt: stage 2's, or its end.
        answer: the ID of the one that fits.
        images: K indices of the images.
        pieces: of each candidate's ID, the part that tells it from others.
        met: for each candidate what it meets of the wish, `NOTHING` to `ALL`.
    """

    prompt: str
    answer: str
    images: list[int]
    pieces: list[str]
    met: list[int]


class Choices:
    """Invents choices between imaged products.

    Args:
        shown: P images with their products.
        rng: of everything that is invented.
    """

    def __init__(self, shown: Sequence[tuple[Product, Photograph]], rng: Random) -> None:
        self.shown, self.rng = shown, rng
        self.shelves: dict[str, list[int]] = {}
        for index, (product, _) in enumerate(shown):
            self.shelves.setdefault(product.kind.name, []).append(index)

    def invent(self, candidates: int, titled: bool, whole: bool) -> Choice:
        """A choice between `candidates` products of one kind, no two of one colour and pattern.

        Args:
            candidates: K.
            titled: whether the candidates have titles, which do not tell.
            whole: whether the prompt has its beginning, which is the same for all, and a whole conversation.
        """
        rng, shown = self.rng, self.shown
        shelf = rng.choice(list(self.shelves.values()))
        rng.shuffle(shelf)
        different = {(shown[i][1].look.colour, shown[i][1].look.pattern): i for i in shelf}
        images = rng.sample(list(different.values()), candidates)
        looks = [shown[i][1].look for i in images]
        pieces = rng.sample(ID_PIECES, candidates)
        ids = [ID_START + piece + ID_END for piece in pieces]
        place = rng.randrange(candidates)
        wanted, look = shown[images[place]][0], looks[place]
        alone = rng.random() < 0.2 and sum(other.colour == look.colour for other in looks) == 1
        says = converse(wanted.kind, look, alone, rng) if whole or rng.random() < 0.3 else wish(look, alone, rng)
        titles = [shown[i][0].title if titled else "" for i in images]
        prompt = recommendation_prompt(says, [Shown(*pair, VIEWS) for pair in zip(ids, titles, strict=True)])
        met = []
        for other in looks:
            colour, pattern = other.colour == look.colour, other.pattern == look.pattern and not alone
            met.append(ALL if colour and (pattern or alone) else COLOUR if colour else PATTERN if pattern else NOTHING)
        return Choice(prompt if whole else prompt[prompt.index("\nConversation:") :], ids[place], images, pieces, met)


class ChoosingLoss(nn.Module):
    """The losses of choices, in nats; holds the head that says what a candidate meets, which is thrown away afterwards.

    Args:
        llava: the model.
        processor: with the placeholders.
        choices: invents them.
        features: (P, 5, vision width), what is projected to visual tokens.
    """

    def __init__(
        self,
        llava: LlavaNextForConditionalGeneration,
        processor: LlavaNextProcessor,
        choices: Choices,
        features: Tensor,
    ) -> None:
        super().__init__()
        self.llava = [llava]  # in a list: no part of this module
        self.tokenizer, self.places = processor.tokenizer, placeholder_ids(processor)
        self.choices, self.features = choices, features
        self.met = nn.Linear(llava.config.text_config.hidden_size, ALL + 1)

    def forward(self, progress: float) -> Tensor:
        """A batch's loss: the answers', and what is asked silently. Choices grow with `progress`, 0 to 1."""
        rng, whole = self.choices.rng, progress >= 0.9
        count = rng.choice((3, 4, 5)) if progress < 0.65 else rng.choice((5, 10, 10))
        tokens = CANDIDATE_TOKENS * count + CONVERSATION_TOKENS + whole * INSTRUCTION_TOKENS
        titled = [progress >= 0.3 and rng.random() < 0.5 for _ in range(max(4, BATCH_TOKENS // tokens))]
        answered, silent = self.of([self.choices.invent(count, one, whole) for one in titled])
        return answered + (silent if progress < 0.85 else 0.3 * silent)

    def of(self, batch: Sequence[Choice]) -> tuple[Tensor, Tensor]:
        """The mean loss of the answers' tokens, and of what is asked at the visual tokens: two scalars."""
        (llava,), tokenizer = self.llava, self.tokenizer
        encoded = encode(tokenizer, [choice.prompt for choice in batch], [choice.answer for choice in batch])
        padded = pad([one.input_ids for one in encoded], [one.target_start for one in encoded], tokenizer.pad_token_id)
        ids = padded["input_ids"]
        images = [index for choice in batch for index in choice.images]
        visual_tokens = project(llava, self.features[images].flatten(0, 1))
        language = llava.model.language_model
        states = language(
            inputs_embeds=fill_placeholders(llava.get_input_embeddings()(ids), ids, visual_tokens, self.places),
            attention_mask=padded["attention_mask"],
            output_hidden_states=True,
            use_cache=False,
        )
        targets = padded["labels"][:, 1:]
        supervised = targets != IGNORED
        answers = llava.lm_head(states.last_hidden_state[:, :-1][supervised])
        seen = language.norm(states.hidden_states[-2][torch.isin(ids, torch.tensor(self.places))])  # (5 B K, D)
        pieces = tokenizer.convert_tokens_to_ids([piece for choice in batch for piece in choice.pieces])
        met = [value for choice in batch for value in choice.met]
        silent = _at_each_view(self.met(seen), met) + 0.5 * _at_each_view(llava.lm_head(seen), pieces)
        return nn.functional.cross_entropy(answers, targets[supervised]), silent


def naming_loss(
    llava: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    images: Sequence[Photograph],
    features: Tensor,
) -> Tensor:
    """How badly the visual tokens themselves, read as words, name colour and pattern: a scalar, in nats.

    It brings images and words together, without which a wish's word hardly finds the image that it means.

    Args:
        llava: the model.
        processor: its tokenizer has a token for every colour and pattern.
        images: B images.
        features: (B, 5, vision width).
    """
    read = llava.lm_head(llava.model.language_model.norm(project(llava, features.flatten(0, 1))))
    words = {word: processor.tokenizer.convert_tokens_to_ids("▁" + word) for word in (*COLOURS, *PATTERNS)}
    colours = _at_each_view(read, [words[image.look.colour] for image in images])
    return colours + _at_each_view(read, [words[image.look.pattern] for image in images])


def _at_each_view(logits: Tensor, labels: Sequence[int]) -> Tensor:
    return nn.functional.cross_entropy(logits, torch.tensor(labels).repeat_interleave(VIEWS))
