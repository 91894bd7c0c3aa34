"""`python -m lavic web`: the assistant, or a chat with any LLaVA, in a browser, on 127.0.0.1 unless told otherwise."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lavic.commands.checking import whole_number
from lavic.commands.flags import ABOUT, HOST, PORT, RECOMMENDATION, add_server_options, add_shop_options
from lavic.commands.given import CLASSES, flags, given_options
from lavic.commands.options import OptionParser, found_configs, read_task
from lavic.errors import UserError
from lavic.files.json_entries import read_json
from lavic.web.address import held

DEMO = (
    "--config", "configs/recommend.yaml", "--config", "configs/demo_recommend.yaml",
    "--trainer.default_root_dir", "out_demo/recommendation/shop",
)  # fmt: skip
EXAMPLES = "examples.json"  # in the data's folder: a list of wishes to start with
PROG = "python -m lavic web"


def main(argv: Sequence[str]) -> int:
    """The command line: stage 2's YAML file for the shop, --chat_model for a chat, and where to listen."""
    if "--demo" in argv:
        argv = [*DEMO, *(argument for argument in argv if argument != "--demo")]
    given = given_options(found_configs(argv), CLASSES)
    with held(str(given.get("host", HOST)), whole_number("--port", given.get("port", PORT))) as address:
        options, tabs = _tabs(argv, shop="config" in dict(flags(argv)))
        from lavic.web.page import build_page, serve  # Gradio takes seconds to import

        page = build_page("LaViC", tabs)
        address.release()
        serve(page, address.host, address.port, options.share)
    return 0


def _tabs(argv: Sequence[str], shop: bool) -> tuple[Namespace, dict[str, Callable[[], None]]]:
    """The options, and what fills each tab: minutes of loading."""
    tabs: dict[str, Callable[[], None]] = {}
    if shop:
        options, tabs["Shop"] = _shop(argv)
    else:
        parser = OptionParser(prog=PROG, description=ABOUT["web"])
        add_server_options(parser)
        options = parser.parse(argv)
    if options.chat_model or options.chat_adapter:
        tabs["Chat"] = _chat(options)
    if not tabs:
        raise UserError("There is nothing to serve; give --config FILE of stage 2, --chat_model DIR, or --demo.")
    return options, tabs


def _shop(argv: Sequence[str]) -> tuple[Namespace, Callable[[], None]]:
    task, data, options = read_task(argv, PROG, ABOUT["web"], add_shop_options, RECOMMENDATION)
    from lavic.commands.recommend import load_recommender  # with PyTorch

    recommender = load_recommender(task, data, options)
    from lavic.web.shop import Assistant, shop_tab

    assistant = Assistant(recommender, options.top)
    return options, lambda: shop_tab(assistant, _examples(data.data_dir / EXAMPLES))


def _chat(options: Namespace) -> Callable[[], None]:
    from lavic.web.chat import Chatter, chat_tab, load_chat_model

    chatter = Chatter(*load_chat_model(options.chat_model, options.chat_adapter, options.any_base))
    return lambda: chat_tab(chatter)


def _examples(path: Path) -> list[str]:
    found: Any = read_json(path) if path.is_file() else []
    return [str(text) for text in found]
