"""A conversation in, the catalogue's products out: retrieval finds candidates, the model ranks them.

The two are apart: `Retriever` (and, for a wish with an image, `WishImages`) say which items could be meant and why;
the model, prompted as in training, says how likely each of them is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from lavic.catalogue.items import read_items
from lavic.errors import UserError
from lavic.model.processor import load_processor
from lavic.ranges import check_ranges
from lavic.retrieval.documents import Indexed
from lavic.retrieval.retriever import Candidate, Retriever
from lavic.retrieval.scorers import Method
from lavic.tasks.recommendation.batches import ChoiceEncoder
from lavic.tasks.recommendation.data import RecommendationData
from lavic.tasks.recommendation.item_store import ItemStore, store_identity
from lavic.tasks.recommendation.task import Recommendation
from lavic.tasks.recommendation.wish_image import WishImages


class NothingFound(UserError):
    """No item of the catalogue matches a conversation, so there is nothing to rank."""


@dataclass(frozen=True)
class Recommended:
    """A product, the log-likelihood of its ID in nats, its probability among the candidates, and why it was one."""

    item: str
    title: str
    image: str | None
    log_likelihood: float
    probability: float
    why: str = ""


class Recommender:
    """A loaded model and an indexed catalogue.

    Args:
        task: the task; its model is loaded here.
        data: names the catalogue and the item store.
        candidates: how many items retrieval picks for the model to rank.
        device: where the model runs.
        indexed: what of an item is searched: titles, descriptions, or both.
        method: bm25 or embeddings.
        embedding_model: a sentence-transformers directory or hub name.
    """

    def __init__(
        self,
        task: Recommendation,
        data: RecommendationData,
        candidates: int,
        device: torch.device,
        indexed: Indexed = "both",
        method: Method = "bm25",
        embedding_model: str | None = None,
    ) -> None:
        check_ranges(candidates=candidates)
        self.items = read_items(data.metadata, data.images_dirs)
        self.candidates = min(candidates, len(self.items))
        self.retriever = Retriever(self.items, data.metadata, indexed, method, embedding_model)
        identity = store_identity(data.model_name, task.distilled, data.views)
        store = ItemStore.open(data.item_store, identity, self.items.values())
        task.check_files()
        task.load_model(device)
        self._task, self._device = task.to(device).eval(), device
        titles = {item.id: item.title for item in self.items.values()}
        self._encoder = ChoiceEncoder(task.processor.tokenizer, titles, store, data.max_length, data.seed)
        self._images = WishImages(task, load_processor(data.model_name, data.views), store, device)

    def rank(self, conversation: str, image: Path | None = None) -> list[Recommended]:
        """The candidates for a conversation, the likeliest first.

        Args:
            conversation: in the published form; see `seeker_turns`.
            image: of the wish: items that look like it are candidates too, and what it shows is added to the wish.

        Raises:
            NothingFound: nothing in the catalogue matches.
            UserError: the image cannot be decoded.
        """
        alike: list[Candidate] = []
        if image is not None:
            tokens = self._images.tokens(image)
            alike = self._images.alike(tokens, self.candidates)
            conversation += seeker_turns([f"The image that I mean shows this: {self._images.description(tokens)}"])
        found = merged(self.retriever.candidates(conversation, self.candidates), alike, self.candidates)
        if not found:
            raise NothingFound(
                f"Nothing in the catalogue's {self._searched()} matches these words; say it in other words, or in the"
                " catalogue's own language."
            )
        likelihoods = self.likelihoods(conversation, [candidate.item for candidate in found])
        probabilities = likelihoods.softmax(dim=0)
        ranked = []
        for place in likelihoods.argsort(descending=True, stable=True).tolist():
            item = self.items[found[place].item]
            shown = str(item.image) if item.image else None
            numbers = float(likelihoods[place]), float(probabilities[place])
            ranked.append(Recommended(item.id, item.title, shown, *numbers, found[place].why))
        return ranked

    @torch.inference_mode()
    def likelihoods(self, conversation: str, items: Sequence[str]) -> Tensor:
        """The log-likelihood in nats of each item's ID as the answer, (items,) float32."""
        batch = self._encoder.batch([(conversation, items)])
        on_device = move_data_to_device(batch, self._device)
        return self._task.read(on_device).scores(batch["answers"], batch["unscored"])[0]

    def _searched(self) -> str:
        return "titles and descriptions" if self.retriever.indexed == "both" else self.retriever.indexed


def merged(found: Sequence[Candidate], alike: Sequence[Candidate], k: int) -> list[Candidate]:
    """At most `k` candidates, taken from both in turn, the reasons of an item in both put together."""
    reasons: dict[str, list[str]] = {}
    for candidate in (*found, *alike):
        reasons.setdefault(candidate.item, []).append(candidate.why)
    longest = max(len(found), len(alike))
    in_turn = (source[place] for place in range(longest) for source in (found, alike) if place < len(source))
    chosen = {candidate.item: candidate for candidate in in_turn}
    return [Candidate(item, one.score, "; ".join(reasons[item])) for item, one in list(chosen.items())[:k]]


def seeker_turns(turns: Sequence[str]) -> str:
    """What one person says, turn by turn, in the published form.

    The prompt says that the seeker's words are denoted by <submission> and those of other users by <comment>.
    """
    return "".join(f"<submission>{turn.strip()}</submission>\n" for turn in turns)
