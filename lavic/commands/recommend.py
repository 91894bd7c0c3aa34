"""`python -m lavic recommend`: a conversation in, the catalogue's products out, the likeliest first.

Retrieval over titles and descriptions picks the candidates (`lavic/retrieval/retriever.py`), the model ranks them by
the likelihood of their IDs (`lavic/tasks/recommendation/recommender.py`).
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from lavic.commands.flags import ABOUT, RECOMMENDATION, add_recommend_options
from lavic.commands.options import read_task
from lavic.errors import UserError
from lavic.files import clean, read_text
from lavic.ranges import check_ranges
from lavic.tasks.recommendation import Recommendation, RecommendationData
from lavic.tasks.recommendation.recommender import NothingFound, Recommended, Recommender, seeker_turns
from lavic.training.used_adapter import OUTPUT, best_folder, choose_adapter


def main(argv: list[str]) -> int:
    """The command line: stage 2's YAML file, and where the conversation comes from."""
    prog, about = "python -m lavic recommend", ABOUT["recommend"]
    task, data, options = read_task(argv, prog, about, add_recommend_options, RECOMMENDATION)
    check_ranges("--", top=options.top)
    if not options.chat and options.conversation != "-" and not Path(options.conversation).is_file():
        raise UserError(f"The conversation file {options.conversation} does not exist; give a text file, or - .")
    recommender = load_recommender(task, data, options)
    for conversation in _conversations(options):
        started = time.perf_counter()
        try:
            ranked = recommender.rank(conversation, options.image)[: options.top]
        except NothingFound as nothing:
            advice = f"{nothing} More of the catalogue is searched with --index both or --method embeddings."
            if not options.chat:
                raise NothingFound(advice) from None
            print(advice, file=sys.stderr)
            continue
        _show(ranked, time.perf_counter() - started, options.json)
    return 0


def load_recommender(task: Recommendation, data: RecommendationData, options: Namespace) -> Recommender:
    """The recommender of a task with a trained adapter: the one that is named, or the best of the output directory.

    Raises:
        UserError: there is no adapter, or the catalogue or its item store cannot be used.
    """
    check_ranges("--", candidates=options.candidates)
    if options.method == "embeddings" and not options.embedding_model:
        raise UserError(
            "--method embeddings needs --embedding_model, a sentence-transformers directory or hub name; give it, or"
            " --method bm25."
        )
    trainer = options.trainer
    output, best = Path(trainer.default_root_dir or OUTPUT), best_folder(task, trainer.callbacks)
    named = task.adapter or output / best
    if not named.is_dir():
        raise UserError(
            f"The recommendation adapter {named} does not exist; train one with `python -m lavic fit`, or give "
            "another by --model.init_args.adapter."
        )
    task.adapter = choose_adapter(task.adapter, output, best).folder
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Recommender(task, data, options.candidates, device, options.index, options.method, options.embedding_model)


def _conversations(options: Namespace) -> Iterator[str]:
    """Texts in the published form; what a person types becomes one turn of it."""
    if not options.chat:
        given = options.conversation
        text = read_text(sys.stdin.buffer if given == "-" else Path(given))
        if not text.strip():
            raise UserError("The conversation is empty; write what the user is looking for.")
        yield text if "<submission>" in text else seeker_turns([text])
        return
    turns: list[str] = []
    print("What are you looking for? (an empty line ends)", file=sys.stderr)
    for line in sys.stdin:
        if not line.strip():
            return
        turns.append(clean(line))
        yield seeker_turns(turns)


def _show(ranked: list[Recommended], seconds: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"latency_seconds": seconds, "products": [asdict(r) for r in ranked]}, ensure_ascii=False))
        return
    table = Table("", Column("ID", no_wrap=True), "probability", "title", Column("image", overflow="fold"))
    for place, r in enumerate(ranked, 1):
        cells = (str(place), r.item, f"{r.probability:.3f}", r.title, r.image or "none")
        table.add_row(*map(Text, cells))
    Console().print(table)
    print(f"latency: {seconds:.3f} s")
