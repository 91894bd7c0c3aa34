"""`python -m lavic recommend`: a conversation in, the catalogue's products out, the likeliest first.

BM25 over the titles picks the candidates (`lavic/retrieval/scorers.py`), the model ranks them by the likelihood of
their IDs.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Column, Table

from lavic.catalogue.items import read_items
from lavic.commands.options import read_options
from lavic.errors import UserError
from lavic.files import clean, read_text
from lavic.retrieval.scorers import Bm25, top_k, without_markup
from lavic.tasks.recommendation.choices import ChoiceEncoder
from lavic.tasks.recommendation.data import RecommendationData
from lavic.tasks.recommendation.item_store import ItemStore, store_identity
from lavic.tasks.recommendation.task import Recommendation

BEST_ADAPTER = "recommendation_lora_adapter_best"


@dataclass(frozen=True)
class Recommended:
    """A product, the log-likelihood of its ID in nats, and its probability among the candidates."""

    item: str
    title: str
    image: str | None
    log_likelihood: float
    probability: float


class Recommender:
    """A loaded model and an indexed catalogue.

    Args:
        task: the task; its model is loaded here.
        data: names the catalogue and the item store.
        candidates: how many items BM25 picks for the model to rank.
        device: where the model runs.
    """

    def __init__(self, task: Recommendation, data: RecommendationData, candidates: int, device: torch.device) -> None:
        self.items = read_items(data.metadata, data.images_dirs)
        if candidates < 1:
            raise UserError(f"candidates is {candidates}; it must be at least 1.")
        self.candidates = min(candidates, len(self.items))
        self._ids = list(self.items)
        titles = {item.id: item.title for item in self.items.values()}
        self._index = Bm25(list(titles.values()))
        identity = store_identity(data.model_name, task.distilled, data.views)
        store = ItemStore.open(data.item_store, identity, self.items.values())
        task.load_model(device)
        self._task, self._device = task.to(device).eval(), device
        self._encoder = ChoiceEncoder(task.processor.tokenizer, titles, store, data.max_length, data.seed)

    @torch.inference_mode()
    def rank(self, conversation: str) -> list[Recommended]:
        """The candidates for a conversation, the likeliest first."""
        scores = self._index.scores([without_markup(conversation)])[0]
        ids = [self._ids[i] for i in top_k(scores, self.candidates)]
        batch = self._encoder.batch([(conversation, ids)])
        on_device = {k: v.to(self._device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        likelihoods = self._task.read(on_device).scores(batch["answers"], batch["unscored"])[0]
        probabilities = likelihoods.softmax(dim=0)
        ranked = []
        for place in likelihoods.argsort(descending=True, stable=True).tolist():
            item = self.items[ids[place]]
            image = str(item.image) if item.image else None
            ranked.append(
                Recommended(item.id, item.title, image, float(likelihoods[place]), float(probabilities[place]))
            )
        return ranked


def main(argv: list[str]) -> int:
    """The command line: stage 2's YAML file, and where the conversation comes from."""
    task, data, options = read_options(
        argv, "python -m lavic recommend", "Recommends products of a catalogue to a conversation.", _add_options
    )
    if task.adapter is None:
        task.adapter = Path(options.trainer.get("default_root_dir") or "out_recommend") / BEST_ADAPTER
    if not task.adapter.is_dir():
        raise UserError(
            f"The recommendation adapter {task.adapter} does not exist; train one with `python -m lavic fit`, or give "
            "another by --model.init_args.adapter."
        )
    if not options.chat and options.conversation != "-" and not Path(options.conversation).is_file():
        raise UserError(f"The conversation file {options.conversation} does not exist; give a text file, or - .")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recommender = Recommender(task, data, options.candidates, device)
    for conversation in _conversations(options):
        started = time.perf_counter()
        ranked = recommender.rank(conversation)[: options.top]
        _show(ranked, time.perf_counter() - started, options.json)
    return 0


def _add_options(parser: LightningArgumentParser) -> None:
    parser.add_argument("--conversation", type=str, default="-", help="A text file; - reads standard input.")
    parser.add_argument("--chat", action="store_true", help="Read a conversation line by line, answering each.")
    parser.add_argument("--candidates", type=int, default=10, help="Items that BM25 picks for the model to rank.")
    parser.add_argument("--top", type=int, default=10, help="Products shown.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of a table.")


def _conversations(options: Namespace) -> Iterator[str]:
    """Texts in the published form; what a person types becomes one turn of it."""
    if not options.chat:
        given = options.conversation
        text = read_text(sys.stdin.buffer if given == "-" else Path(given))
        if not text.strip():
            raise UserError("The conversation is empty; write what the user is looking for.")
        yield text if "<submission>" in text else f"<submission>{text.strip()}</submission>\n"
        return
    turns = ""
    print("What are you looking for? (an empty line ends)", file=sys.stderr)
    for line in sys.stdin:
        if not line.strip():
            return
        turn = "comment" if turns else "submission"
        turns += f"<{turn}>{clean(line.strip())}</{turn}>\n"
        yield turns


def _show(ranked: list[Recommended], seconds: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"latency_seconds": seconds, "products": [asdict(r) for r in ranked]}, ensure_ascii=False))
        return
    table = Table("", Column("ID", no_wrap=True), "probability", "title", Column("image", overflow="fold"))
    for place, r in enumerate(ranked, 1):
        table.add_row(str(place), r.item, f"{r.probability:.3f}", r.title, r.image or "none")
    Console().print(table)
    print(f"latency: {seconds:.3f} s")
