"""`python -m lavic describe`: the undistilled LLaVA-v1.6 describes every image of a catalogue, for stage 1 to learn.

It can be stopped and started again at any time. `torchrun --nproc-per-node N -m lavic describe ...`, or SLURM's srun,
shares the images between N devices.
"""

from pathlib import Path

from lavic.commands.options import OptionParser, with_long_names
from lavic.errors import UserError
from lavic.model.describing import MAX_NEW_TOKENS, PROMPT
from lavic.model.loading import BaseModel
from lavic.ranges import check_ranges
from lavic.tasks.distillation.teacher import describe_catalogue


def describe(
    base: BaseModel,
    metadata: Path = Path("data/item2meta_train.json"),
    images_dir: Path = Path("data/train_images"),
    output: Path | None = None,
    batch_size: int = 8,
    max_new_tokens: int = MAX_NEW_TOKENS,
    prompt: str = PROMPT,
    num_workers: int = 4,
) -> None:
    """Writes a new item2meta file with a description of every image that has none.

    Args:
        base: the checkpoint, and how it is held in memory.
        metadata: the item2meta file; it stays as it is.
        images_dir: the folder of its images.
        output: the new file, or --out FILE; beside the old one, with `_described` behind its name, when not given.
        batch_size: images described at a time on each device.
        max_new_tokens: tokens of a description at most, its end counted; a longer one ends with its last sentence.
        prompt: what the model is asked, with {title} and {image} in their places.
        num_workers: processes that read and cut images, for each device.
    """
    check_ranges(batch_size=batch_size, max_new_tokens=max_new_tokens, num_workers=num_workers)
    if not metadata.is_file():
        raise UserError(f"The metadata file {metadata} does not exist; write it with `python -m lavic import`.")
    if not images_dir.is_dir():
        raise UserError(f"The images folder {images_dir} does not exist; fill it with `python -m crawl`.")
    output = output or metadata.with_name(f"{metadata.name.split('.')[0]}_described{_suffix(metadata)}")
    if output.exists() and output.samefile(metadata):
        raise UserError(f"The output {output} is the metadata file itself; give another path.")
    done = describe_catalogue(base, metadata, images_dir, output, batch_size, max_new_tokens, prompt, num_workers)
    if done is None:
        return
    print(f"{done.images} images described -> {output}")
    for reason, number in done.left_out.most_common():
        print(f"left out: {number} x {reason}")
    if done.left_out:
        print(f"what was left out is listed in {done.listed}")


def _suffix(metadata: Path) -> str:
    return Path(metadata.name.removesuffix(".gz")).suffix or ".json"


def main(argv: list[str]) -> int:
    """The command line; see `describe` for the options."""
    parser = OptionParser(prog="python -m lavic describe", description="Describes every image.")
    parser.add_argument("--config", action="config", help="YAML file of the options below: configs/describe.yaml.")
    parser.add_function_arguments(describe, fail_untyped=False)
    options = parser.made(with_long_names(argv))
    describe(**{name: value for name, value in vars(options).items() if name != "config"})
    return 0
