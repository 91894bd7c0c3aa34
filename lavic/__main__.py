"""`python -m lavic COMMAND`: fit, validate, test and predict are Lightning's; the others are LaViC's own."""

import importlib
import logging
import sys
import warnings

from lavic.errors import UserError

LIGHTNING = ("fit", "validate", "test", "predict")
OWN = {  # command -> module with main(args), and what it does
    "demo": ("lavic.demo.run", "the sample catalogue, a toy model and stage 1 on a CPU, in minutes"),
    "train": ("lavic.commands.train", "stage 1 by the reproduction's flags, such as --batch_size and --train_data"),
    "plan": ("lavic.commands.plan", "parameters, memory, TFLOP and time of a YAML file, before any weight is loaded"),
    "report": ("lavic.commands.report", "one HTML page of a run: curves, configuration, versions, images with texts"),
    "embed": ("lavic.commands.embed", "stage 2: the CLS tokens of every catalogue image, once"),
    "retrieve": ("lavic.commands.retrieve", "stage 2: candidates for your own conversations, by BM25 or embeddings"),
    "recommend": ("lavic.commands.recommend", "stage 2: a conversation in, ranked products out"),
    "web": ("lavic.commands.web", "the assistant in a browser, on this machine"),
}


def main() -> int:
    """Runs the command; a user's mistake is one sentence and exit status 2."""
    command, args = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    warnings.filterwarnings("ignore", module="lightning|torch|peft|transformers")
    try:
        if command in LIGHTNING:
            importlib.import_module("lavic.commands.fit").main([command, *args])
        elif command in OWN:
            return importlib.import_module(OWN[command][0]).main(args) or 0
        elif command in ("-h", "--help"):
            print(_help())
        else:
            raise UserError(f"'{command}' is no command of lavic; give one of {', '.join((*LIGHTNING, *OWN))}.")
    except UserError as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before or after the training loop, which saves and stops by itself
        return 130
    return 0


def _sentence(error: UserError) -> str:
    """The error's own words; a loader's worker puts its traceback before them."""
    return str(error).strip().rpartition("lavic.errors.UserError: ")[2]


def _help() -> str:
    own = "\n".join(f"  {name:<10} {text}" for name, (_, text) in OWN.items())
    return f"""usage: python -m lavic COMMAND [options]; every command has --help

  fit        train by a YAML file: --config configs/distill.yaml
  validate   the validation metrics of an adapter
  test       the test metrics of an adapter
  predict    what the model generates
{own}"""


if __name__ == "__main__":
    sys.exit(main())
