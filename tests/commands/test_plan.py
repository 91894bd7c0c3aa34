"""`python -m lavic plan`: what it says of the shipped configurations, and what it refuses."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from lavic.commands.plan import main
from lavic.cost.gpus import known_gpu
from lavic.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


def plan(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    main([*args, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_it_works_offline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the plan asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert plan(capsys, "--config", str(CONFIGS / "distill.yaml"))["parameters"]["total"] == 7_566_747_648


@pytest.mark.parametrize(("config", "most"), [(("distill",), 17), (("distill", "with/8gb"), 8)])
def test_the_shipped_configs_fit_where_they_say(
    config: tuple[str, ...], most: float, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [part for name in config for part in ("--config", str(CONFIGS / f"{name}.yaml"))]
    found = plan(capsys, *files, "--gpu", "RTX 4090")
    parts = {part: size for part, size in found["gib"].items() if part != "total"}
    assert found["gib"]["total"] == pytest.approx(sum(parts.values()))
    assert found["gib"]["total"] < most
    assert found["fits"] is True
    assert found["trainable_parameters"] == 3_645_440


def test_speed_is_flop_over_the_assumed_share_of_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(capsys, "--config", str(CONFIGS / "distill.yaml"), "--gpu", "RTX 4090")
    assert found["tflop_per_sample"] == pytest.approx(7.81, abs=0.01)
    assert found["samples_per_second"] == pytest.approx(165.2 * found["assumed_mfu"] / found["tflop_per_sample"])


def test_without_a_gpu_nothing_is_promised(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = plan(capsys, "--config", str(CONFIGS / "distill.yaml"))
    assert (found["gpu"], found["fits"], found["samples_per_second"]) == (None, None, None)
    main(["--config", str(CONFIGS / "distill.yaml")])
    assert "no GPU here" in capsys.readouterr().out


@pytest.mark.parametrize("gpu", ["RTX 3080", "RTX 4080", "RTX 4090"])
def test_the_changes_it_names_make_it_fit(gpu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    above = tmp_path / "larger.yaml"
    above.write_text("{model: {init_args: {checkpointing: {vision: none}}}, data: {init_args: {batch_size: 8}}}")
    base = ["--config", str(CONFIGS / "distill.yaml"), "--config", str(above)]
    found = plan(capsys, *base, "--gpu", gpu)
    assert found["fits"] is False
    assert found["changes"]
    settings: dict[str, Any] = {"checkpointing": {}, "base": {}}
    batch = 8
    for change in found["changes"]:
        name, value = change.split(",")[0].split(": ")
        match name.split("."):
            case ["data", "batch_size"]:
                batch = int(value)
            case ["model", group, key]:
                settings[group][key] = value
    changed = tmp_path / "changed.yaml"
    changed.write_text(json.dumps({"model": {"init_args": settings}, "data": {"init_args": {"batch_size": batch}}}))
    assert plan(capsys, *base, "--config", str(changed), "--gpu", gpu)["fits"] is True


def test_hours_are_of_the_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = tmp_path / "train.json"
    described = {
        item: {"title": item, "image_descriptions_llava_cleaned": {f"{item}_0.jpg": "text", f"{item}_1.jpg": "text"}}
        for item in ("A", "B")
    }
    metadata.write_text(json.dumps({**described, "C": {}, "D": {**described["A"], "title": ""}}))
    above = tmp_path / "above.yaml"
    above.write_text(f"{{data: {{init_args: {{train_data: {metadata}}}}}, trainer: {{max_epochs: 3}}}}")
    args = ["--config", str(CONFIGS / "distill.yaml"), "--config", str(above), "--gpu", "H100"]
    found = plan(capsys, *args)
    assert found["samples"] == 12
    assert found["hours"] == pytest.approx(12 / found["samples_per_second"] / 3600)


def test_vqa_reads_every_patch(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--config", str(CONFIGS / "vqa.yaml"), "--gpu", "H100"]
    found = plan(capsys, *args, "--prompt_tokens", "72")
    assert (found["sample"]["views"], found["sample"]["tokens"]) == (5, 3000)  # of 672 x 672: 576 + 48 rows of 49
    assert found["trainable_parameters"] == 83_886_080
    # a frozen weight costs 2 FLOP a token forward and 2 back to the layer before; attention and adapters come on top
    least = 4 * 3000 * 6.98e9 / 1e12
    assert least < found["tflop_per_sample"] - found["tflop_by_part"]["vision_forward"] < 1.3 * least
    assert found["tflop_by_part"]["vision_backward"] == 0


def test_instruction_by_its_entry(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = [f"--model.init_args.base.name={tiny}", "--prompt_tokens=50"]
    base += [f"--{part}.init_args.entry={{tokens: cls}}" for part in ("model", "data")]
    sample = plan(capsys, "--config", str(CONFIGS / "instruct.yaml"), *base)["sample"]
    assert (sample["views"], sample["tokens"], sample["targets"], sample["patches"]) == (5, 55, 25, False)


def test_images_are_embedded_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--config", str(CONFIGS / "recommend.yaml"), "--images", "1000"]
    found = plan(capsys, *args, "--gpu", "H100")["images"]
    reached = 989.4 * 0.45
    assert found["embed"]["hours"] == pytest.approx(1000 * found["embed"]["tflop_per_image"] / reached / 3600)
    # decoding 100 tokens reads the language model's 14.2 GB, shared by 8 images, and an image's 0.4 GB, each time
    decoding = 100 * (14.22 / 8 + 3078 * 131_072 / 1e9) / 3350
    described = found["describe"]["tflop_per_image"] / reached + decoding
    assert found["describe"]["hours"] == pytest.approx(1000 * described / 3600, rel=0.01)
    main([*args, "--gpu", "H100"])
    assert "for 1,000 images" in capsys.readouterr().out
    with pytest.raises(UserError, match="--images is 0"):
        main([*args[:2], "--images", "0"])


@pytest.mark.parametrize("overlay", [None, *sorted(path.stem for path in (CONFIGS / "with").glob("*.yaml"))])
@pytest.mark.parametrize("task", ["align", "describe", "distill", "instruct", "recommend", "vqa"])
def test_every_task_with_every_overlay(
    task: str, overlay: str | None, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It plans, or says in one sentence why not."""
    args = [
        "--config",
        str(CONFIGS / f"{task}.yaml"),
        *(["--config", str(CONFIGS / "with" / f"{overlay}.yaml")] if overlay else []),
    ]
    args += ["--gpu", "RTX 4090", "--images", "10"]
    if task in ("align", "instruct"):  # which name a model that is not here
        args += [f"--model.init_args.base.name={tiny}"]
        args += [f"--{part}.init_args.entry={{tokens: patch}}" for part in ("model", "data")]
    unfit = {
        "local_lite": ("align", "distill"),
        "t4_qlora": ("align",),
        "cloud": ("align",),
    }  # whose parts or LoRA targets they do not have
    if task == "describe" or task in unfit.get(overlay or "", ()):  # describe trains nothing
        with pytest.raises(UserError) as refused:
            main(args)
        assert str(refused.value).count("\n") == 0
        return
    main(args)
    said = capsys.readouterr().out
    assert "fit on RTX 4090" in said or "fits on RTX 4090" in said
    assert "describe" in said
    assert ("divides some over the processes" in said) == (overlay in ("fsdp2", "zero2"))
    if overlay in ("8gb", "qlora"):
        whole = plan(capsys, *args[:2], *args[4:])["gib"]["language_weights"]
        assert plan(capsys, *args)["gib"]["language_weights"] < whole


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model: {init_args: {trainable: {vision: half}}}", "half"),
        ("model: {init_args: {speedups: {fast: true}}}", "fast"),
        ("- 1", "wrong.yaml holds a list"),
    ],
)
def test_a_wrong_file_is_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=named):
        main(["--config", str(CONFIGS / "distill.yaml"), "--config", str(path)])
    with pytest.raises(UserError, match="missing"):
        main(["--config", str(tmp_path / "missing.yaml")])


def test_gpus_are_found_by_what_they_call_themselves() -> None:
    names = {
        "NVIDIA GeForce RTX 4090": 165.2,
        "NVIDIA A100-SXM4-40GB": 312.0,
        "NVIDIA A100 80GB PCIe": 312.0,
        "NVIDIA H100 80GB HBM3": 989.4,
        "NVIDIA H100 PCIe": 756.0,
        "NVIDIA H200": 989.4,
        "Tesla T4": 65.0,
        "NVIDIA L40S": 362.1,
    }
    for name, tflops in names.items():
        gpu = known_gpu(name)
        assert gpu is not None, name
        assert gpu.tflops == tflops, name
    for unknown in ("NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4070 Ti", "Radeon VII", "NVIDIA L40"):
        assert known_gpu(unknown) is None, unknown


def test_an_unknown_gpu_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'RTX 9999' is not known"):
        main(["--config", str(CONFIGS / "distill.yaml"), "--gpu", "RTX 9999"])
