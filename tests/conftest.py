"""What many tests share: a tiny LLaVA-v1.6, a small set of described images, and the command line in-process."""

import itertools
import json
import logging
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lavic.demo.toy_llava import tiny_checkpoint

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background job ignores Ctrl-C, and so would all that a test starts in order to interrupt it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# made empty when torch and wandb are imported; and tests/real_tokenizers.py's; all are removed as the
# process ends, but for multiprocessing's where a test kills it
REMOVED_LATER = ("torchinductor_*", "tmp*wandb-*", "lavic-tokenizers-*", "pymp-*")


@pytest.fixture(autouse=True, scope="session")
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests' temporary folder lies in pytest's own, of which it keeps three, and is empty when they have ended.

    So a killed session leaves nothing anywhere else.
    """
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)  # which it remembers
        yield
    left = sorted(path.name for path in folder.iterdir() if not any(path.match(own) for own in REMOVED_LATER))
    assert not left, f"{len(left)} files or folders were left in the temporary folder, such as {left[:3]}"


os.environ["TIKTOKEN_CACHE_DIR"] = ""  # it would leave a folder among the temporary files

COLOURS = ("red", "blue", "green", "yellow", "black", "white")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample tables are made in the test session's own folder, never in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of an untrained LLaVA-v1.6 of a few hundred thousand parameters: read only."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def composed_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a LLaVA-1.5 composed of the demo's CLIP and Llama, hardly trained: read only."""
    from tests.composed import compose_toy  # with the models' classes, which few tests need

    return compose_toy(tmp_path_factory.mktemp("composed"))


@dataclass(frozen=True)
class Described:
    """A folder laid out as DESIGN section 3 says, with `train` samples in a `.json` and `valid` in a `.jsonl` file."""

    folder: Path
    train: int
    valid: int

    def flags(self) -> list[str]:
        """The data module's options that name its files."""
        option = "--data.init_args."
        return [
            f"{option}train_data={self.folder / 'item2meta_train.json'}",
            f"{option}val_data={self.folder / 'item2meta_valid.jsonl'}",
            f"{option}train_images_dir={self.folder / 'train_images'}",
            f"{option}val_images_dir={self.folder / 'valid_images'}",
        ]


def write_described(folder: Path, train: int, valid: int) -> Described:
    """Items whose description names a colour, of several lengths, images of several shapes."""
    rng = random.Random(7)
    catalogue: dict[str, object] = {}
    lines = []
    for number in range(train + valid):
        item, colour = f"B{number:09d}" if number % 5 else f"0{number:09d}", rng.choice(COLOURS)
        title = "Kitchen towel " + " ".join(rng.choices(["set", "large", "cotton", "pack"], k=number % 4 + 1))
        text = f"The image shows a {colour} towel." + " It lies on a table." * (number % 3)
        name, split = f"{item}_0.jpg", "train" if number < train else "valid"
        image = Image.new("RGB", (rng.choice([120, 200, 480]), rng.choice([100, 300])), colour)
        ImageDraw.Draw(image).ellipse((10, 10, 20 + number, 60), fill="grey")
        (folder / f"{split}_images").mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{split}_images" / name)
        if split == "train":
            images = [{"large": f"http://127.0.0.1/{name}"}]
            catalogue[item] = {"title": title, "images": images, "image_descriptions_llava_cleaned": {name: text}}
        else:
            lines.append({"title": title, "image_name": name, "image_description_llava_cleaned": text})
    (folder / "item2meta_train.json").write_text(json.dumps(catalogue))
    (folder / "item2meta_valid.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Described(folder, train, valid)


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Described:
    """19 samples to train on and 7 to validate with: neither divides by a batch of 4. Read only."""
    return write_described(tmp_path_factory.mktemp("described"), train=19, valid=7)


Fit = Callable[..., Path]


@pytest.fixture
def fit(tiny: Path, described: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit(*options)` runs `python -m lavic fit` on the tiny model in this process; returns the output directory."""
    from lavic.commands import fit as cli

    numbers = itertools.count()

    def run(*options: str) -> Path:
        number = next(numbers)
        output = tmp_path / f"out_{number}"
        monkeypatch.setenv("LAVIC_RUN_ID", f"training_20260101_{number:06d}")
        before = logging.getLogger().handlers[:]
        try:
            cli.main(
                [
                    "fit", "--config", "configs/distill.yaml", *described.flags(),
                    f"--model.init_args.base.name={tiny}",
                    "--data.init_args.num_workers=0", "--trainer.accelerator=cpu", "--model.init_args.lr=0.002",
                    f"--trainer.default_root_dir={output}", f"--logs_dir={tmp_path / 'logs'}",
                    "--model.init_args.max_new_tokens=8", *options,
                ]
            )  # fmt: skip
        finally:
            logging.getLogger().handlers[:] = before
        return output

    monkeypatch.chdir(Path(__file__).parents[1])
    return run
