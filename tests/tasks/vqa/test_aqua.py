"""AQUA's real questions end to end, by the real command line, on rendered images and a tiny model (C3)."""

import json
import os
import random
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from lavic.retrieval.passages import read_passages
from tests.tasks.vqa.comparison import assert_numbers_are_the_scripts
from tests.training.command_line import ROOT, losses, run

EVERY = int(os.environ.get("LAVIC_REAL_EVERY", "104"))  # 1 asks all 5,124 questions
AQUA = ROOT.parent / "shared" / "systems" / "data" / "aqua"


def render(name: str, path: Path) -> None:
    """A small image that is this name's alone."""
    rng = random.Random(zlib.crc32(name.encode()))
    image = Image.new("RGB", (rng.randint(40, 90), rng.randint(40, 90)), tuple(rng.choices(range(256), k=3)))
    ImageDraw.Draw(image).ellipse((5, 5, 20, 30), fill=tuple(rng.choices(range(256), k=3)))
    image.save(path, quality=90)


def write_files(folder: Path, rows: list[dict[str, Any]], taught: int) -> list[str]:
    """`rows` to test, the first `taught` of them to learn, fewer to validate; the options that name these files."""
    (folder / "Images").mkdir(parents=True)
    for name in sorted({row["image"] for row in rows}):
        render(name, folder / "Images" / name)
    for split, count in (("train", taught), ("val", 8), ("test", len(rows))):
        (folder / f"{split}.json").write_text(json.dumps(rows[:count]), encoding="utf-8")
    option = "--data.init_args."
    return [
        f"--config={ROOT}/configs/vqa.yaml", *(f"{option}{s}_data={folder / s}.json" for s in ("train", "val", "test")),
        f"{option}images_dir={folder / 'Images'}", f"{option}knowledge.mode=use",
        f"{option}knowledge.path={AQUA / 'semart_val.csv'}", f"{option}num_workers=0", f"{option}batch_size=4",
        "--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.accumulate_grad_batches=2",
        "--model.init_args.max_new_tokens=3", "--model.init_args.lr=0.01",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not AQUA.is_dir(), reason=f"no {AQUA}")
def test_every_way_to_ask_gives_the_same_metrics(tiny: Path, tmp_path: Path) -> None:
    every = json.loads((AQUA / "val.json").read_text(encoding="utf-8"))
    images = sorted({row["image"] for row in every})[::EVERY]
    rows = [row for row in every if row["image"] in images]  # all questions of a few images
    assert {row["need_external_knowledge"] for row in rows} == {True, False}
    options = [*write_files(tmp_path, rows, taught=24), f"--model.init_args.base.name={tiny}"]
    run(["fit", *options, "--trainer.max_steps=3", "--trainer.log_every_n_steps=1",
         f"--trainer.default_root_dir={tmp_path / 'fit'}", f"--logs_dir={tmp_path / 'fit' / 'logs'}"], tmp_path / "fit",
         strategy=None)  # fmt: skip
    assert list(losses(tmp_path / "fit")) == [1, 2, 3]
    found = []
    for processes, streaming in product((1, 2), ("false", "true")):
        out = tmp_path / f"test_{processes}_{streaming}"
        adapter = f"--model.init_args.adapter={tmp_path / 'fit' / 'vqa_adapter_best'}"
        run(["test", *options, adapter, f"--data.init_args.streaming={streaming}",
             f"--trainer.default_root_dir={out}", f"--logs_dir={out / 'logs'}"], out, processes)  # fmt: skip
        assert_every_question_once(out / "evaluation_results", rows)
        found.append(assert_numbers_are_the_scripts(out / "evaluation_results"))
    assert all(one == found[0] for one in found)
    assert found[0]["controls"].keys() == {"no_image", "shuffled_images", "no_description"}
    described = read_passages(AQUA / "semart_val.csv")
    needed = [row for row in rows if row["need_external_knowledge"] and row["image"] in described]
    assert found[0]["controls"]["no_description"]["samples"] == len(needed)


def assert_every_question_once(results: Path, rows: list[dict[str, Any]]) -> None:
    lines = (results / "detailed_results.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    assert [line["sample_id"] for line in written] == list(range(len(rows)))
    for line, row in zip(written, rows, strict=True):
        asked = (line["image"], line["question"], line["ground_truth"], line["need_external_knowledge"])
        assert asked == (row["image"], row["question"], row["answer"], row["need_external_knowledge"])
        assert isinstance(line["response"], str)
