"""Stage 2's data sets: conversations and candidates as micro-batches, made whole in the loader's workers.

Images come as CLS tokens out of the item store; no image is opened here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lavic.batching.controls import partners_of
from lavic.batching.padding import Padded, TrainingBatch, pad
from lavic.batching.step_plan import MicroBatch
from lavic.catalogue.conversations import Conversation, Sample
from lavic.catalogue.items import NO_TITLE
from lavic.errors import UserError
from lavic.model.prefix_reuse import Segments
from lavic.tasks.recommendation.item_store import ItemStore
from lavic.tasks.recommendation.prompt import EncodedChoice, Shown, encode_choice

Control = Literal["no_images", "shuffled_images"]
Way = Literal["own", "no_images", "shuffled_images"]

OWN: Literal["own"] = "own"
NO_IMAGES: Literal["no_images"] = "no_images"
SHUFFLED: Literal["shuffled_images"] = "shuffled_images"
CONTROLS: tuple[Control, ...] = (NO_IMAGES, SHUFFLED)  # without images, and with another item's in each place
WAYS: tuple[Way, ...] = (OWN, *CONTROLS)


class CandidatesBatch(Padded):
    """Prompts, and the IDs of all candidates as possible answers."""

    cls_tokens: Tensor  # (V, C)
    answers: list[list[list[int]]]  # of each prompt the candidates' tokens, as `PromptState.scores` takes them
    unscored: list[int]  # of each prompt, how many tokens all of its answers begin with


class ChoiceBatch(TrainingBatch):
    """Prompts and the IDs that are to be learned."""

    cls_tokens: Tensor  # (V, C)
    segments: NotRequired[Segments]  # set before the batch leaves the host


class EvaluationBatch(TypedDict):
    """Cases as they are, and as the controls show them where those are asked for."""

    own: CandidatesBatch
    no_images: NotRequired[CandidatesBatch]
    shuffled_images: NotRequired[CandidatesBatch]
    rows: tuple[int, ...]  # of the cases; none if it is a ghost
    targets: tuple[int, ...]  # each sample's place among its candidates


class ChoiceEncoder:
    """What a conversation and its candidates look like to the model.

    Args:
        tokenizer: with the placeholders.
        titles: of every item by ID; unknown items are shown as the published code does, as "No Title".
        store: the items' CLS tokens.
        max_length: tokens of a prompt and its longest answer at most.
        seed: of the pairing of items whose images are swapped in the shuffled control.
    """

    def __init__(self, tokenizer: Any, titles: Mapping[str, str], store: ItemStore, max_length: int, seed: int) -> None:
        self.tokenizer, self.titles, self.store, self.max_length = tokenizer, titles, store, max_length
        self.pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        imaged = [item for item in store.items if store.views(item)]
        partners: list[int] = partners_of(imaged, seed).tolist() if imaged else []
        self.partners = {item: imaged[partner] for item, partner in zip(imaged, partners, strict=True)}

    def encode(
        self, context: str, candidates: Sequence[str], answers: Sequence[str], images: bool = True
    ) -> EncodedChoice:
        """The prompt's tokens and the answers'; `images` false leaves the placeholders out."""
        shown = [
            Shown(item, self.titles.get(item, NO_TITLE), self.store.views(item) if images else 0) for item in candidates
        ]
        return encode_choice(self.tokenizer, context, shown, answers, self.max_length)

    def fits(self, candidates: Sequence[str], answers: Sequence[str]) -> bool:
        """Says whether candidates fit into `max_length`, if need be without conversation and titles."""
        try:
            self.encode("", candidates, answers)
        except UserError:
            return False
        return True

    def partner_tokens(self, candidates: Sequence[str]) -> Tensor:
        """Another item's CLS tokens in the place of each one's own, as many as its own: (V, C)."""
        parts = [self.store.cls_tokens([])]
        for item in candidates:
            if own := self.store.views(item):
                others = self.store.cls_tokens([self.partners[item]])
                parts.append(others[torch.arange(own) % len(others)])
        return torch.cat(parts)

    def batch(self, rows: Sequence[tuple[str, Sequence[str]]], images: bool = True) -> CandidatesBatch:
        """Prompts of (context, candidates)."""
        encoded = [self.encode(context, candidates, candidates, images) for context, candidates in rows]
        padded = pad([choice.prompt_ids for choice in encoded], [0] * len(rows), self.pad_id)
        shown = [item for _, candidates in rows for item in candidates]
        return {
            "input_ids": padded["input_ids"],
            "attention_mask": padded["attention_mask"],
            "cls_tokens": self.store.cls_tokens(shown if images else []),
            "answers": [choice.answers for choice in encoded],
            "unscored": [choice.unscored for choice in encoded],
        }


class TrainingChoices(Dataset[ChoiceBatch]):
    """Micro-batches of prompt and target, by the `MicroBatch` that names their samples."""

    def __init__(self, samples: Sequence[Sample], encoder: ChoiceEncoder) -> None:
        self.samples, self.encoder = samples, encoder

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, micro_batch: MicroBatch) -> ChoiceBatch:
        """The batch of a step plan's entry."""
        samples = [self.samples[i] for i in micro_batch.indices]
        sequences, starts = [], []
        for sample in samples:
            choice = self.encoder.encode(sample.conversation.context, sample.candidates, [sample.target])
            sequences.append(choice.prompt_ids + choice.answers[0])
            starts.append(len(choice.prompt_ids) + choice.unscored)
        padded = pad(sequences, starts, self.encoder.pad_id, micro_batch.ghost)
        shown = self.encoder.store.cls_tokens([item for sample in samples for item in sample.candidates])
        return {
            **padded, "cls_tokens": shown, "step_targets": micro_batch.step_targets, "rows": micro_batch.indices,
        }  # fmt: skip


class EvaluationChoices(Dataset[EvaluationBatch]):
    """The same cases with their own images and, if asked for, as the controls show them.

    Args:
        cases: conversations as they are, or samples with their own candidates and target.
        encoder: makes the prompts.
        controls: whether a batch holds the controls beside the cases themselves.
    """

    def __init__(self, cases: Sequence[Conversation | Sample], encoder: ChoiceEncoder, controls: bool) -> None:
        self.cases, self.encoder, self.controls = cases, encoder, controls

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, micro_batch: MicroBatch) -> EvaluationBatch:
        """The batch of a step plan's entry."""
        cases = [self.cases[i] for i in micro_batch.indices]
        shown = [context_and_candidates(case) for case in cases]
        own = self.encoder.batch(shown)
        batch: EvaluationBatch = {
            "own": own,
            "rows": () if micro_batch.ghost else micro_batch.indices,
            "targets": tuple(case.candidates.index(case.target) for case in cases if isinstance(case, Sample)),
        }
        if self.controls:
            batch["no_images"] = self.encoder.batch(shown, images=False)
            others = self.encoder.partner_tokens([item for _, candidates in shown for item in candidates])
            batch["shuffled_images"] = {**own, "cls_tokens": others}
        return batch


def context_and_candidates(case: Conversation | Sample) -> tuple[str, Sequence[str]]:
    """What the prompt of a conversation, or of a sample with its own candidates, is made of."""
    return (case.conversation if isinstance(case, Sample) else case).context, case.candidates


def rough_length(case: Conversation | Sample, titles: Mapping[str, str]) -> int:
    """Letters of a prompt's conversation and titles: enough to put prompts of like length together."""
    context, candidates = context_and_candidates(case)
    return len(context) + sum(len(titles.get(item, NO_TITLE)) for item in candidates)
