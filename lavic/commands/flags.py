"""The flags of the commands that import PyTorch, apart from it: their help and their mistakes need none.

`settle` is called before such a command's module is imported.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from lavic.commands.early import check_task_options, run_help, run_options, wants_help
from lavic.commands.function_options import check_function_options, function_help
from lavic.commands.options import OptionParser, before_torch, found_configs, with_long_names
from lavic.model.base_model import Architecture, ComposedDtype, Dtype
from lavic.retrieval.documents import Indexed
from lavic.retrieval.scorers import Method

RECOMMENDATION = ("lavic.tasks.recommendation.Recommendation", "lavic.tasks.recommendation.RecommendationData")
DESCRIBE = "lavic.commands.describe.describe"
HOST, PORT = "127.0.0.1", 7860
ABOUT = {
    "plan": "What a configuration needs.",
    "embed": "Computes every item's CLS tokens once.",
    "recommend": "Recommends products of a catalogue to a conversation.",
    "web": "Serves the assistant, a chat with any LLaVA, or both, as a web page.",
}


def settle(command: str, argv: Sequence[str]) -> bool:
    """Prints the help of a command that imports PyTorch, and finds the mistakes that need none of it.

    Args:
        command: any command's name.
        argv: its arguments.

    Returns:
        Whether that was all that was asked for.

    Raises:
        UserError: an option is wrong or missing.
    """
    if command in ("fit", "validate", "test", "predict"):
        if wants_help(argv):
            print(run_help(command, found_configs(argv)))
            return True
        check_task_options(found_configs(argv), run_options())
    elif command == "describe":
        if wants_help(argv):
            print(function_help("python -m lavic describe", DESCRIBE))
            return True
        check_function_options(found_configs(with_long_names(argv)), DESCRIBE)
    elif command in ADDED and (command != "web" or wants_help(argv)):
        needs = None if command == "plan" else RECOMMENDATION
        before_torch(argv, f"python -m lavic {command}", ABOUT[command], ADDED[command], needs)
    elif command in PARSERS:
        PARSERS[command]().parse(argv)
    return False


def add_plan_options(parser: OptionParser) -> None:
    """What to plan for."""
    parser.add_argument(
        "--gpu", type=str | None, default=None, help="GPU to plan for, such as RTX_4090; the one in this machine."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of a table.")
    parser.add_argument("--prompt_tokens", type=int, default=500, help="Tokens of a prompt and answer; not stage 1's.")
    parser.add_argument("--images", type=int | None, default=None, help="Also plan embed and describe of so many.")


def add_embed_options(parser: OptionParser) -> None:
    """How many images go through the model at a time."""
    parser.add_argument("--batch_size", type=int, default=16, help="Images a forward pass (of five views each).")


def add_retrieval_options(parser: OptionParser) -> None:
    """How candidates are found, for every command that ranks a catalogue."""
    parser.add_argument("--candidates", type=int, default=10, help="Items that retrieval picks for the model to rank.")
    parser.add_argument("--index", type=Indexed, default="both", help="What of an item is searched.")
    parser.add_argument("--method", type=Method, default="bm25", help="How the candidates are found.")
    parser.add_argument(
        "--embedding_model", type=str | None, default=None, help="sentence-transformers, for embeddings."
    )


def add_recommend_options(parser: OptionParser) -> None:
    """Where the conversation comes from, and how the answer is shown."""
    parser.add_argument("--conversation", type=str, default="-", help="A text file; - reads standard input.")
    parser.add_argument("--chat", action="store_true", help="Read a conversation line by line, answering each.")
    add_retrieval_options(parser)
    parser.add_argument("--image", type=Path | None, default=None, help="An image file that shows what is meant.")
    parser.add_argument("--top", type=int, default=10, help="Products shown.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of a table.")


def add_server_options(parser: OptionParser) -> None:
    """Where to listen, and what to chat with."""
    parser.add_argument("--host", type=str, default=HOST, help="Address to listen on; others can reach 0.0.0.0.")
    parser.add_argument("--port", type=int, default=PORT, help="Port to listen on; 0 takes a free one.")
    parser.add_argument("--share", action="store_true", help="Publish the page through Gradio's relay.")
    parser.add_argument(
        "--chat_model", type=str | None, default=None, help="Directory or hub name of a LLaVA to chat with."
    )
    parser.add_argument(
        "--chat_adapter", type=Path | None, default=None, help="An adapter for it; names its base if that is not given."
    )
    parser.add_argument(
        "--any_base", action="store_true", help="Chat with an adapter on other weights than those it was trained on."
    )


def add_shop_options(parser: OptionParser) -> None:
    """The server's, with what the assistant takes beside them."""
    parser.add_argument("--demo", action="store_true", help="Serve the shop that ./run_training.sh --demo has made.")
    add_server_options(parser)
    add_retrieval_options(parser)
    parser.add_argument("--top", type=int, default=10, help="Products shown.")


def compose_parser() -> OptionParser:
    """Of `python -m lavic compose`."""
    parser = OptionParser(
        prog="python -m lavic compose", description="Builds a LLaVA from a vision tower and a language model."
    )
    parser.add_argument("--vision", type=str, required=True, help="Vision tower: a directory or hub name, as CLIP's.")
    parser.add_argument("--language", type=str, required=True, help="Language model: a directory or hub name.")
    parser.add_argument("--out", type=Path, required=True, help="The new checkpoint's directory.")
    parser.add_argument("--architecture", type=Architecture, default="llava", help="LLaVA-1.5 or LLaVA-1.6.")
    parser.add_argument("--dtype", type=ComposedDtype, default="auto", help="Of all weights; auto: the language's.")
    parser.add_argument("--seed", type=int, default=0, help="Of the projector's new weights.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of a table.")
    return parser


def export_parser() -> OptionParser:
    """Of `python -m lavic export`."""
    parser = OptionParser(prog="python -m lavic export", description="Merges adapters into a plain checkpoint.")
    parser.add_argument("--adapter", type=Path, required=True, help="The adapter's directory.")
    parser.add_argument("--distilled", type=Path | None, default=None, help="Stage 1's adapter, below one of stage 2.")
    parser.add_argument("--base", type=str | None, default=None, help="The base; null: the one the adapter names.")
    parser.add_argument("--any_base", action="store_true", help="Take a base with other weights than the adapter's.")
    parser.add_argument("--out", type=Path, required=True, help="The new checkpoint's directory.")
    parser.add_argument("--dtype", type=Dtype, default="auto", help="Of the weights written; auto is bfloat16.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of a line.")
    return parser


ADDED: dict[str, Callable[[OptionParser], None]] = {
    "plan": add_plan_options,
    "embed": add_embed_options,
    "recommend": add_recommend_options,
    "web": add_shop_options,
}
PARSERS = {"compose": compose_parser, "export": export_parser}
