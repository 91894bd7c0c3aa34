"""The reproduction's flags become options of `fit`."""

import pytest

from lavic.commands.train import OPTIONS, expand
from lavic.errors import UserError

REPRODUCTION = [
    "--batch_size", "--num_epochs", "--lr", "--max_samples", "--train_data", "--val_data", "--train_images_dir",
    "--val_images_dir", "--output_dir", "--model_name",
]  # fmt: skip


def test_every_flag_of_the_reproduction_is_taken() -> None:
    assert set(REPRODUCTION) <= set(OPTIONS)


def test_flags_are_replaced_and_everything_else_passed_on() -> None:
    given = ["--batch_size", "4", "--lr=1e-4", "--trainer.max_steps", "9", "--resume", "--logs_dir=x"]
    assert expand(given) == [
        "fit", "--config", "configs/distill.yaml", "--data.init_args.batch_size", "4", "--model.init_args.lr", "1e-4",
        "--trainer.max_steps", "9", "--resume", "--logs_dir=x",
    ]  # fmt: skip


def test_other_configs_replace_the_default() -> None:
    assert expand(["--config", "a.yaml", "--config=b.yaml"])[:5] == ["fit", "--config", "a.yaml", "--config", "b.yaml"]


@pytest.mark.parametrize(
    ("args", "said"),
    [(["--batchsize", "4"], "--batchsize"), (["4"], "'4'"), (["--lr"], "--lr"), (["--lr", "--batch_size"], "--lr")],
)
def test_mistakes_name_the_flag(args: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        expand(args)
