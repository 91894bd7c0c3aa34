"""`python -m lavic train`: stage 1 by the flags of the public reproduction, each an option of the YAML file.

    python -m lavic train --batch_size 4 --train_data data/item2meta_train.json

is `python -m lavic fit --config configs/distill.yaml` with those two options set. Whatever else is given, such as
`--trainer.max_steps 100`, is passed on as it is.
"""

from lavic.commands.flags import settle
from lavic.errors import UserError

OPTIONS = {
    "--model_name": "--model.init_args.base.name",
    "--train_data": "--data.init_args.train_data",
    "--val_data": "--data.init_args.val_data",
    "--train_images_dir": "--data.init_args.train_images_dir",
    "--val_images_dir": "--data.init_args.val_images_dir",
    "--output_dir": "--trainer.default_root_dir",
    "--batch_size": "--data.init_args.batch_size",
    "--max_samples": "--data.init_args.max_samples",
    "--num_epochs": "--trainer.max_epochs",
    "--lr": "--model.init_args.lr",
    "--accelerator": "--trainer.accelerator",
    "--devices": "--trainer.devices",
    "--seed": "--seed_everything",
}
PASSED_ON = ("--resume", "--logs_dir")
CONFIG = "configs/distill.yaml"


def expand(args: list[str]) -> list[str]:
    """The arguments of `fit` that the short flags stand for.

    Raises:
        UserError: an argument is not a flag, or a short flag has no value.
    """
    expanded: list[str] = []
    configs: list[str] = []
    rest = list(args)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("-"):
            raise UserError(f"'{flag}' is no flag; write --FLAG VALUE, with one of {', '.join(OPTIONS)}.")
        if flag in OPTIONS or flag == "--config":
            if not equals:
                if not rest or rest[0].startswith("--"):
                    raise UserError(f"{flag} has no value; write {flag} VALUE.")
                value = rest.pop(0)
            if flag == "--config":
                configs.append(value)
            else:
                expanded += [OPTIONS[flag], value]
            continue
        if "." not in flag and flag not in PASSED_ON:
            raise UserError(
                f"{flag} is no flag of this command; give one of {', '.join(OPTIONS)}, or a full option of `fit`."
            )
        expanded.append(flag + equals + value)
        if not equals and rest and not rest[0].startswith("--"):
            expanded.append(rest.pop(0))
    return ["fit", *(part for config in configs or [CONFIG] for part in ("--config", config)), *expanded]


def main(args: list[str]) -> None:
    """Trains stage 1."""
    if args and args[0] in ("-h", "--help"):
        print(help_text())
    else:
        _, *expanded = expand(args)
        settle("fit", expanded)
        from lavic.commands import fit  # which imports torch

        fit.main(["fit", *expanded])


def help_text() -> str:
    """The flags and what they stand for."""
    flags = "\n".join(f"  {short:<20} {full}" for short, full in OPTIONS.items())
    return f"""usage: ./run_training.sh [--demo | flags]; every other option of `python -m lavic fit` is taken too

  --config             a YAML file that the flags change ({CONFIG}); a second one is set on top of the first
{flags}"""
