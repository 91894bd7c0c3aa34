"""Stage 2's steps against a plain script: loss, gradient norm, val_loss, and AdamW with its weight decay."""

import json
from pathlib import Path

import pytest

from tests.independent_training import Trained, train_recommendation, write_adapter
from tests.stage2_files import Stage2Files, write_stage2_files
from tests.training.command_line import ROOT, run
from tests.training_steps import CLIP, DECAY, LR, OPTIONS, STEPS, assert_trained_as, split

LANGUAGE = r".*language_model.*(q|k|v|o|gate|up|down)_proj"


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage2Files:
    """Two categories of 4 and 3 training samples, one of them with two truths; embedded."""
    folder = tmp_path_factory.mktemp("steps")
    files = write_stage2_files(folder / "files", tiny)
    for category, kept in (("home", 3), ("garden", 2)):
        for name in ("train", "valid"):
            path = files.folder / category / f"{name}.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            usable = [line for line in lines if set(line["gt_items"]) <= set(line["candidates_st"])][:kept]
            usable[0]["gt_items"] = [usable[0]["candidates_st"][i] for i in (7, 2, 7)]
            for line in usable[1:]:
                del line["gt_items"][1:]
            path.write_text("".join(json.dumps(line) + "\n" for line in usable))
    write_adapter(tiny, folder / "start", LANGUAGE, seed=11)
    run(["embed", *options(files)], folder / "embedded")
    return files


def options(files: Stage2Files) -> list[str]:
    return [option.replace("--config=", f"--config={ROOT}/") for option in files.options()]


@pytest.fixture(scope="module")
def plain(files: Stage2Files) -> dict[str, Trained]:
    """What the plain script makes of each category."""
    start = files.folder.parent / "start"
    return {
        category: train_recommendation(
            files.model, files.distilled, start, files.folder, category, STEPS, LR, DECAY, CLIP
        )
        for category in ("home", "garden")
    }


@pytest.mark.parametrize(
    ("category", "batch_size", "accumulate", "processes"),
    [
        pytest.param("home", 1, 4, 1, id="batch 1 x accumulation 4"),
        pytest.param("home", 4, 1, 1, id="batch 4"),
        pytest.param("home", 2, 1, 2, id="batch 2 x 2 processes"),
        pytest.param("garden", 1, 8, 1, id="an epoch's short last step", marks=pytest.mark.slow),
        pytest.param("garden", 1, 4, 2, id="a process without a sample", marks=pytest.mark.slow),
    ],
)
def test_a_step_is_that_of_the_plain_script(
    files: Stage2Files, plain: dict[str, Trained], tmp_path: Path, category: str, batch_size: int, accumulate: int,
    processes: int,
) -> None:  # fmt: skip
    output = tmp_path / "out"
    adapter = f"--model.init_args.adapter={files.folder.parent / 'start'}"
    arguments = ["fit", *options(files), *OPTIONS, adapter, f"--data.init_args.categories=[{category}]"]
    arguments += [*split(batch_size, accumulate), f"--trainer.default_root_dir={output}", f"--logs_dir={output}/logs"]
    run(arguments, output, processes)
    assert_trained_as(plain[category], output)
