"""`python -m lavic compose`: a LLaVA from a vision tower and a language model, in one directory."""

import json
from dataclasses import asdict
from pathlib import Path

from lavic.commands.options import OptionParser
from lavic.commands.quiet import quieten
from lavic.model.composing import Architecture, ComposedDtype, compose


def main(argv: list[str]) -> int:
    """The command line; the result, parameters by part, goes to standard output."""
    quieten()
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
    options = parser.parse(argv)
    made = compose(
        options.vision, options.language, Path(options.out), options.architecture, options.dtype, options.seed
    )
    if options.json:
        print(json.dumps({**asdict(made), "folder": str(made.folder)}))
        return 0
    for part, count in [*made.parameters.items(), ("total", sum(made.parameters.values()))]:
        print(f"{part:<10}{count:>16,} parameters")
    print(
        f"{made.folder}: {made.rows:,} embedding rows, <image> is {made.image_token_id}, chat template {made.template}"
    )
    return 0
