"""`./run_training.sh --demo --task vqa`: questions about drawn images, some of which only a table can answer.

Asked without the image, with another one, and without the table's text, a model that has learned to look and to read
must do worse, each where it matters.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lavic.catalogue.images import open_image
from lavic.demo.questions import split_images, words, write_questions
from lavic.demo.toy_llava_1_5 import build_1_5
from lavic.demo.training_runs import Run, rows
from lavic.errors import UserError
from lavic.evaluation.intervals import Interval
from lavic.files.json_entries import read_json

CONTROLS = {  # a control -> the questions on which it must do worse, and how it is told
    "no_image": ("without_external_knowledge", "without the image"),
    "shuffled_images": ("without_external_knowledge", "with another image"),
    "no_description": ("with_external_knowledge", "without the table's text"),
}
TITLES = {"without_external_knowledge": "of the image", "with_external_knowledge": "of outside knowledge"}


def demonstrate(folder: Path, seed: int, passed_on: Sequence[str], run: Run, console: Console) -> None:
    """Makes the questions, trains on them and tests, by the commands that a user types.

    Args:
        folder: of everything that the demo makes.
        seed: of the toy model and of training.
        passed_on: further flags of `python -m lavic fit`.
        run: runs `python -m MODULE ARGUMENTS...`.
        console: takes what is shown.

    Raises:
        UserError: a step failed, or what it left shows no learning.
    """
    started, output = time.monotonic(), folder / "vqa"
    data, toy = output / "data", output / "toy_llava"
    console.print("\n[bold]Questions about drawn images, and a table of what the images do not show[/]")
    write_questions(data)
    shown = split_images()["train"]
    console.print("\n[bold]A toy LLaVA-1.5 that can name what it sees, and has read nothing yet[/]")
    images = [open_image(data / "Images" / image.name) for _, image in shown]
    build_1_5(toy, words(shown), images, [image.look for _, image in shown], seed)
    options = [
        "--config", "configs/vqa.yaml", "--config", "configs/demo_vqa.yaml", "--seed_everything", 42 + seed,
        "--model.init_args.base.name", toy,
        *(word for split in ("train", "val", "test") for word in (f"--data.init_args.{split}_data",
                                                                  data / f"{split}.json")),
        "--data.init_args.images_dir", data / "Images", "--data.init_args.knowledge.path", data / "knowledge.csv",
        "--trainer.default_root_dir", output,
    ]  # fmt: skip
    console.print("\n[bold]It learns to answer from the image and from the table's text[/]")
    run("lavic", "fit", *options, *passed_on)
    run("lavic", "test", *options, "--model.init_args.adapter", output / "vqa_adapter_best")
    show(output, console, time.monotonic() - started)


def show(output: Path, console: Console, seconds: float) -> None:
    """Exact match beside its controls, three answers, and where everything is.

    Raises:
        UserError: a control is not clearly below the model.
    """
    results = output / "evaluation_results"
    metrics: dict[str, Any] = read_json(results / "metrics.json")
    title = f"VQA, demo: {metrics['total_samples']} test questions about {metrics['images']} images"
    table = Table("", "questions", "exact match", "95% interval", title=title)
    close = []
    for group, told in TITLES.items():
        numbers = metrics[group]
        own = _interval(numbers)
        table.add_row(f"questions {told}", str(numbers["samples"]), *_told(own))
        for control, (where, name) in CONTROLS.items():
            if where == group:
                other = _interval(numbers["controls"][control])
                table.add_row(f"  {name}", str(numbers["controls"][control]["samples"]), *_told(other))
                close += [] if own.low > other.high else [name]
        best = numbers["majority"]
        table.add_row(f"  always '{best['answer']}'", str(numbers["samples"]), f"{best['exact_match_score']:.3f}", "")
    console.print(table)
    for line in rows(results / "detailed_results.jsonl")[:3]:
        said = f"{line['question']}?  {line['response']}  (right: {line['ground_truth']})"
        console.print(f"  {line['image']}: {said}", markup=False)
    if close:
        raise UserError(
            f"The demo's model is not clearly better than {', '.join(close)}; train longer by --trainer.max_epochs, or"
            " try another --seed."
        )
    console.print(
        "\nWith the image and the table's text the model is above all controls, and the intervals do not overlap.\n"
        f"Every answer: {results / 'detailed_results.jsonl'}; all numbers: {results / 'metrics.json'}\n"
        f"The adapter: {output / 'vqa_adapter_best'} (its README.md says how to load it)\n"
        "Your own questions: docs/vqa.md, python -m lavic fit --config configs/vqa.yaml\n"
        f"{seconds:.0f} s in all."
    )


def _interval(numbers: dict[str, Any]) -> Interval:
    return Interval(numbers["exact_match_score"], *numbers["exact_match_interval"])


def _told(interval: Interval) -> tuple[str, str]:
    return f"{interval.value:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"
