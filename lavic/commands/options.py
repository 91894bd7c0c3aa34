"""The YAML file of stage 2, read by the commands that need its task and data but no trainer."""

from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lavic.commands.fit import Parser, quieten
from lavic.tasks.recommendation.data import RecommendationData
from lavic.tasks.recommendation.task import Recommendation


def read_options(
    argv: list[str], prog: str, description: str, add_options: Callable[[LightningArgumentParser], None]
) -> tuple[Recommendation, RecommendationData, Namespace]:
    """The task (without a model yet), the data module, and the options that `add_options` has added.

    Every key of the file can be given as a flag too, as for `fit`.

    Raises:
        UserError: an option or a key is wrong.
    """
    quieten()
    parser = Parser(prog=prog, description=description)
    parser.add_argument("--config", action="config", help="The YAML file of stage 2, such as configs/recommend.yaml.")
    parser.add_subclass_arguments(Recommendation, "model", required=True)
    parser.add_subclass_arguments(RecommendationData, "data", required=True)
    parser.link_arguments("model.init_args.base.name", "data.init_args.model_name")
    parser.add_argument("--trainer", type=dict[str, Any], default={}, help="As for fit; only its output is used.")
    parser.add_argument("--logs_dir", type=str | None, default=None, help="As for fit; not used.")
    parser.add_argument("--seed_everything", type=int, default=42, help="Seed, as for fit.")
    add_options(parser)
    options = parser.parse_args(argv)
    made = parser.instantiate_classes(options)
    return made.model, made.data, options
