"""`./run_training.sh --demo --stage 2`: recommendation on the sample catalogue, after the demo's stage 1.

The wishes are about what the images show ("something red with stripes"), and the ten candidates share their kind, so
titles do not help: without the right images a model can only guess.
"""

import shlex
import shutil
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lavic.demo.training_runs import Run
from lavic.errors import UserError
from lavic.evaluation.comparison import paired_bootstrap
from lavic.evaluation.ranking import Interval
from lavic.evaluation.tested_rows import TestedRow, read_tested_rows
from lavic.files.json_entries import read_json

DEFAULT, OUTPUT = Path("out_demo"), "recommendation"  # the folder that configs/demo_recommend.yaml names
SHOP = "shop"  # in the output: what was trained on retrieved candidates, for the whole catalogue
INDEXED = ("titles", "both")  # what of the catalogue's 200 items is searched for ten candidates


def recommend_sample(folder: Path, seed: int, run: Run) -> Path:
    """Embeds the catalogue, trains stage 2 and tests it, by the commands that a user types.

    Twice: with the candidates that the conversations give, and with those retrieved from the whole catalogue.

    Args:
        folder: what the demo's stage 1 has left: `toy_llava`, `data`, `distilled`.
        seed: of training.
        run: runs `python -m MODULE ARGUMENTS...`.

    Returns:
        The output directory.

    Raises:
        UserError: there is no stage 1 in `folder`, or a step failed.
    """
    distilled = folder / "distilled" / "vision_lora_adapter_best"
    if not distilled.is_dir():
        raise UserError(f"There is no stage 1 in {folder} (no {distilled}); run the demo without --stage first.")
    output = folder / OUTPUT
    options = [*_options(folder), "--seed_everything", 42 + seed]
    run("lavic", "embed", *options)
    run("lavic", "fit", *options, "--trainer.default_root_dir", output)
    best = output / "recommendation_lora_adapter_best"
    run("lavic", "test", *options, "--trainer.default_root_dir", output, "--model.init_args.adapter", best)
    # Retrieved candidates are of every kind, which the given ones never are: trained on those alone, the model
    # has never had to tell a rug from a tray. So it learns from what retrieval gives it, as the shop uses it.
    shop = output / SHOP
    run("lavic", "fit", *options, "--trainer.default_root_dir", shop, "--data.init_args.candidates", "retrieved:10")
    for indexed in INDEXED:
        run(
            "lavic", "test", *options, "--trainer.default_root_dir", output / f"whole_catalogue_{indexed}",
            "--model.init_args.adapter", shop / best.name, "--data.init_args.candidates", f"retrieved:10:{indexed}",
        )  # fmt: skip
    return output


def _options(folder: Path) -> list[object]:
    data = folder / "data"
    return [
        "--config", "configs/recommend.yaml", "--config", "configs/demo_recommend.yaml",
        "--model.init_args.base.name", folder / "toy_llava",
        "--model.init_args.distilled", folder / "distilled" / "vision_lora_adapter_best",
        "--data.init_args.data_dir", data,
        "--data.init_args.metadata", f"[{data / 'item2meta_train.json'},{data / 'item2meta_valid.jsonl'}]",
        "--data.init_args.images_dirs", f"[{data / 'train_images'},{data / 'valid_images'}]",
        "--data.init_args.item_store", folder / "item_store",
    ]  # fmt: skip


def shop_command(folder: Path) -> str:
    """What opens the shop of a demo's folder in a browser, typed in the repository's root."""
    python = Path(sys.executable)
    found = shutil.which("python")
    if found and Path(found).parent == python.parent:
        interpreter = "python"
    else:  # the demo's own environment, which is not active
        interpreter = str(python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python)
    where = (
        ["--demo"] if folder == DEFAULT else [*_options(folder), "--trainer.default_root_dir", folder / OUTPUT / SHOP]
    )
    return shlex.join([interpreter, "-m", "lavic", "web", *map(str, where)])


def show_whole_catalogue(output: Path, console: Console) -> None:
    """What retrieval and the model reach together over the whole catalogue: titles alone, and with descriptions."""
    for indexed in INDEXED:
        report = read_json(output / f"whole_catalogue_{indexed}" / "end_to_end.json")["all"]
        named = {"both": "titles and descriptions"}.get(indexed, indexed)
        recall = _told(report["retrieval"]["recall@10"])
        console.print(f"The whole catalogue, ten candidates retrieved by {named}: recall@10 {recall}")
        table = Table("", "HitRatio@1", "MRR")
        for way, metrics in report["ways"].items():
            table.add_row(way, _told(metrics["hit_ratio@1"]), f"{metrics['mrr']['value']:.3f}")
        console.print(table)
    described = _rows(output, "both", "scored")
    for other, rows in (
        ("titles alone", _rows(output, "titles", "scored")),
        ("no images", _rows(output, "both", "no_images")),
    ):
        cases = list(described)
        clusters = [described[case].cluster for case in cases]
        columns = [
            (np.array([one[case].numerator for case in cases]), np.ones(len(cases))) for one in (described, rows)
        ]
        apart = paired_bootstrap(columns[0], columns[1], clusters)
        console.print(
            f"HitRatio@1 with titles, descriptions and images less {other}, on the same conversations: "
            f"{apart.value:+.3f} ({apart.low:+.3f} to {apart.high:+.3f}), p {apart.p:.2g}."
        )


def _rows(output: Path, indexed: str, way: str) -> dict[Hashable, TestedRow]:
    return {row.case: row for row in read_tested_rows(output / f"whole_catalogue_{indexed}", way, "hit_ratio@1")}


def _told(interval: dict[str, float]) -> str:
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def show_recommendation(output: Path, console: Console, seconds: float) -> None:
    """The test's main numbers as a table, and whether they show that the images are used.

    Raises:
        UserError: the model with images is not clearly above its controls, or a constrained answer is no candidate.
    """
    overall = read_json(output / "metrics.json")["groups"]["all"]["overall"]
    ways: dict[str, dict[str, Any]] = overall["ways"]
    hits = {way: Interval(**metrics["hit_ratio@1"]) for way, metrics in ways.items()}
    title = f"Stage 2, demo: {overall['conversations']} test conversations, 10 candidates each"
    table = Table("", "HitRatio@1", "95% interval", "ValidRatio", "MRR", title=title)
    for way, hit in hits.items():
        mrr = ways[way].get("mrr")
        valid = ways[way]["valid_ratio"]["value"]
        interval = f"{hit.low:.3f} to {hit.high:.3f}"
        table.add_row(way, f"{hit.value:.3f}", interval, f"{valid:.3f}", f"{mrr['value']:.3f}" if mrr else "")
    console.print(table)
    console.print(f"No model could reach more than {overall['ceilings']['hit_ratio@1']:.3f} with these candidates.")
    below = [way for way in ("no_images", "shuffled_images") if hits["scored"].low <= hits[way].high]
    if below or ways["constrained"]["valid_ratio"]["value"] < 1:
        raise UserError(
            f"The demo's stage 2 is not clearly above {', '.join(below) or 'invalid answers'};"
            " train longer by --trainer.max_epochs, or try another --seed."
        )
    console.print(
        "With the right images the model is above both controls, and the intervals do not overlap.\nThe adapter is in"
        f" {output / 'recommendation_lora_adapter_best'}; every answer is in {output}. {seconds:.0f} s in all.\n"
        f"The shop in a browser: {shop_command(output.parent)}",
        markup=False,  # lists have brackets too
    )
