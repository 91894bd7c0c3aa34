"""`python -m lavic compose`: a LLaVA from a vision tower and a language model, in one directory."""

import json
from dataclasses import asdict
from pathlib import Path

from lavic.commands.flags import compose_parser
from lavic.commands.quiet import quieten
from lavic.model.composing import compose
from lavic.ranges import check_ranges


def main(argv: list[str]) -> int:
    """The command line; the result, parameters by part, goes to standard output."""
    quieten()
    options = compose_parser().parse(argv)
    check_ranges("--", seed=options.seed)
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
