"""Stage 1's steps against a plain script: loss, gradient norm, val_loss, and AdamW with its weight decay."""

from pathlib import Path

import pytest

from tests.conftest import Described, write_described
from tests.independent_training import Trained, train_distillation, write_adapter
from tests.training.command_line import options_of, run
from tests.training_steps import CLIP, DECAY, LR, OPTIONS, STEPS, assert_trained_as, split

VISION = r".*(vision_tower.*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)|multi_modal_projector.*linear_[12])"


@pytest.fixture(scope="module")
def data(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Described]:
    """Four training samples, and three."""
    folder = tmp_path_factory.mktemp("steps")
    write_adapter(tiny, folder / "start", VISION, seed=11)
    return {count: write_described(folder / str(count), count, valid=3) for count in (4, 3)}


@pytest.fixture(scope="module")
def plain(tiny: Path, data: dict[int, Described]) -> dict[int, Trained]:
    """What the plain script makes of both."""
    return {
        count: train_distillation(tiny, described.folder.parent / "start", described.folder, STEPS, LR, DECAY, CLIP)
        for count, described in data.items()
    }


@pytest.mark.parametrize(
    ("count", "batch_size", "accumulate", "processes"),
    [
        pytest.param(4, 1, 4, 1, id="batch 1 x accumulation 4"),
        pytest.param(4, 4, 1, 1, id="batch 4"),
        pytest.param(4, 2, 1, 2, id="batch 2 x 2 processes"),
        pytest.param(3, 1, 8, 1, id="an epoch's short last step", marks=pytest.mark.slow),
        pytest.param(3, 1, 4, 2, id="a process without a sample", marks=pytest.mark.slow),
    ],
)
def test_a_step_is_that_of_the_plain_script(
    tiny: Path, data: dict[int, Described], plain: dict[int, Trained], tmp_path: Path, count: int, batch_size: int,
    accumulate: int, processes: int,
) -> None:  # fmt: skip
    output, described = tmp_path / "out", data[count]
    adapter = f"--model.init_args.adapter={described.folder.parent / 'start'}"
    options = [*OPTIONS, adapter, *split(batch_size, accumulate)]
    run([*options_of(tiny, described, output), *options], output, processes)
    assert_trained_as(plain[count], output)
