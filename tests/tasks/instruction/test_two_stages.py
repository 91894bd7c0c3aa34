"""LLaVA's two stages one after the other: what the first leaves, the second starts from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from lavic.demo import image_talks
from lavic.demo.image_talks import write_talks
from tests.training.command_line import ROOT, losses, run

PROJECTOR = "model.multi_modal_projector."
TENSORS = {f"{PROJECTOR}linear_{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_talks, "SEEN", 10)
        patch.setattr(image_talks, "IMAGES", {"train": 10, "val": 2, "test": 2})
        patch.setattr(image_talks, "TEXTS", {"train": 2, "val": 2})
        write_talks(folder)
    return folder


def files(data: Path, train: str, val: str) -> list[str]:
    return [f"--data.init_args.train_data={data / train}.json", f"--data.init_args.val_data={data / val}.json"]


def stage(name: str, composed_toy: Path, data: Path, output: Path, *more: str, status: int = 0) -> str:
    return run(
        [
            "fit", f"--config={ROOT}/configs/{name}.yaml", f"--config={ROOT}/configs/demo_{name}.yaml",
            f"--model.init_args.base.name={composed_toy}", f"--data.init_args.images_dir={data / 'Images'}",
            f"--data.init_args.cache_dir={data / 'cache'}", "--data.init_args.num_workers=0",
            "--data.init_args.batch_size=2", f"--trainer.default_root_dir={output}", f"--logs_dir={output / 'logs'}",
            "--trainer.log_every_n_steps=1", "--trainer.check_val_every_n_epoch=1", "--trainer.max_epochs=1", *more,
        ],
        output, status=status,
    )  # fmt: skip


def test_the_second_starts_from_what_the_first_has_trained(composed_toy: Path, data: Path, tmp_path: Path) -> None:
    stage("align", composed_toy, data, tmp_path / "aligned", *files(data, "captions", "captions_val"))
    assert sorted(losses(tmp_path / "aligned")) == [1, 2, 3, 4, 5]
    left = tmp_path / "aligned" / "instruction_adapter_best"
    weights = load_file(left / "full_parts.safetensors")
    start = LlavaForConditionalGeneration.from_pretrained(composed_toy).state_dict()
    assert weights.keys() == TENSORS
    assert not any(torch.equal(weights[name], start[name]) for name in TENSORS)

    talks = [*files(data, "train", "val"), f"--model.init_args.projector={left}"]
    resting = ("--model.init_args.lr=1e-30", "--model.init_args.part_lr=null", "--trainer.max_steps=1")
    stage("instruct", composed_toy, data, tmp_path / "resting", *talks, *resting)
    state = torch.load(tmp_path / "resting" / "last.ckpt", weights_only=True)["state_dict"]
    begun = {name[name.index(PROJECTOR) :]: value for name, value in state.items() if PROJECTOR in name}
    assert begun.keys() == TENSORS
    assert all(torch.equal(begun[name], weights[name]) for name in TENSORS)

    frozen = "--model.init_args.trainable.projector=frozen"
    said = stage("instruct", composed_toy, data, tmp_path / "frozen", *talks, frozen, status=2)
    assert "trainable.projector frozen; set that to full" in said
    assert "Traceback" not in said
