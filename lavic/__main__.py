"""`python -m lavic COMMAND`: fit, validate, test and predict are Lightning's; the others are LaViC's own."""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from errno import EDQUOT, ENOSPC

from lavic.errors import UserError

COMMANDS = {  # command -> module with main(args), and what it does
    "fit": ("lavic.commands.fit", "train by a YAML file: --config configs/distill.yaml"),
    "validate": ("lavic.commands.fit", "the validation metrics of an adapter"),
    "test": ("lavic.commands.fit", "the test metrics of an adapter"),
    "predict": ("lavic.commands.fit", "what the model generates"),
    "demo": ("lavic.demo.run", "the sample catalogue, a toy model and stage 1 on a CPU, in minutes"),
    "train": ("lavic.commands.train", "stage 1 by the reproduction's flags, such as --batch_size and --train_data"),
    "compose": ("lavic.commands.compose", "a LLaVA from a vision tower and a language model"),
    "export": ("lavic.commands.export", "an adapter merged into a plain checkpoint, checked after writing"),
    "plan": ("lavic.commands.plan", "parameters, memory, TFLOP and time of a YAML file, before any weight is loaded"),
    "import": ("lavic.commands.import_", "a product table, or Amazon Reviews 2023 metadata, to item2meta"),
    "describe": ("lavic.commands.describe", "the undistilled LLaVA describes every image: stage 1's texts"),
    "embed": ("lavic.commands.embed", "stage 2: the CLS tokens of every catalogue image, once"),
    "retrieve": ("lavic.commands.retrieve", "stage 2: candidates for your own conversations, by BM25 or embeddings"),
    "recommend": ("lavic.commands.recommend", "stage 2: a conversation in, ranked products out"),
    "web": ("lavic.commands.web", "the assistant in a browser, on this machine"),
    "monitor": ("lavic.commands.monitor", "follows the newest run from another terminal"),
    "report": ("lavic.commands.report", "one HTML page of a run: curves, configuration, versions, images with texts"),
    "compare": ("lavic.commands.compare", "tests of several runs side by side, with paired tests between them"),
}
OWN_NAME = ("fit", "validate", "test", "predict")  # commands of one module, which is told which
WITH_TORCH = (*OWN_NAME, "plan", "compose", "export", "describe", "embed", "recommend", "web")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; a user's mistake is one sentence and exit status 2. Results go to standard output, and all
    else to standard error."""
    given = sys.argv[1:] if argv is None else list(argv)
    command, args = (given[0] if given else "--help"), given[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # torchmetrics brings it; it tells of its cache of fonts
    warnings.filterwarnings("ignore", module="lightning|torch|peft|transformers")
    try:
        if command in ("-h", "--help"):
            print(_help())
            return 0
        if command not in COMMANDS:
            raise UserError(f"'{command}' is no command of lavic; give one of {', '.join(COMMANDS)}.")
        if command in WITH_TORCH and importlib.import_module("lavic.commands.flags").settle(command, args):
            return 0
        module = importlib.import_module(COMMANDS[command][0])
        return int(module.main([command, *args] if command in OWN_NAME else args) or 0)
    except UserError as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of the system, about a path that the user gave
        if error.strerror is None:
            raise
        way_out = "make room, or give another path" if error.errno in (ENOSPC, EDQUOT) else "give another path"
        print(f"error: {error.filename or 'A file'} cannot be used ({error.strerror}); {way_out}.", file=sys.stderr)
    except KeyboardInterrupt:  # before or after the training loop, which saves and stops by itself
        return 130
    return 2


def _sentence(error: UserError) -> str:
    """The error's own words; a loader's worker puts its traceback before them."""
    return str(error).strip().rpartition("lavic.errors.UserError: ")[2]


def _help() -> str:
    lines = "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())
    return f"usage: python -m lavic COMMAND [options]; every command has --help\n\n{lines}"


if __name__ == "__main__":
    sys.exit(main())
