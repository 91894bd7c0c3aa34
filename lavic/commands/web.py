"""`python -m lavic web`: the assistant in a browser, on 127.0.0.1 unless told otherwise."""

import json
import sys
from pathlib import Path

from lightning.pytorch.cli import LightningArgumentParser

from lavic.commands.options import read_options
from lavic.commands.recommend import add_retrieval_options, load_recommender

DEMO = ("--config", "configs/recommend.yaml", "--config", "configs/demo_recommend.yaml")
EXAMPLES = Path("examples.json")  # in data_dir: a list of wishes to start with


def main(argv: list[str]) -> int:
    """The command line: stage 2's YAML file, and where to listen."""
    if "--demo" in argv:
        argv = [*DEMO, *(arg for arg in argv if arg != "--demo")]
    task, data, options = read_options(
        argv, "python -m lavic web", "Serves the assistant as a web page.", _add_options
    )
    recommender = load_recommender(task, data, options)
    from lavic.web.page import build_page, serve  # Gradio takes seconds to import
    from lavic.web.shop import Assistant, shop_tab

    assistant = Assistant(recommender, options.top)
    page = build_page("LaViC", {"Shop": lambda: shop_tab(assistant, _examples(data.data_dir / EXAMPLES))})
    print(f"http://{options.host}:{options.port} (Ctrl-C ends it)", file=sys.stderr)
    serve(page, options.host, options.port, options.share)
    return 0


def _examples(path: Path) -> list[str]:
    return [str(text) for text in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


def _add_options(parser: LightningArgumentParser) -> None:
    parser.add_argument("--host", type=str, default="127.0.0.1", help="Address to listen on; others can reach 0.0.0.0.")
    parser.add_argument("--port", type=int, default=7860, help="Port to listen on.")
    parser.add_argument("--share", action="store_true", help="Publish the page through Gradio's relay.")
    add_retrieval_options(parser)
    parser.add_argument("--top", type=int, default=10, help="Products shown.")
