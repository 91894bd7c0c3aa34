"""Every task x every command that uses an adapter: the best one of the output directory, said; none is "untrained"."""

import json
from pathlib import Path
from shutil import copytree

import pytest

from tests.tasks.cases import CASES, fit_arguments
from tests.training.command_line import run

COMMANDS = ("validate", "test", "predict")
WRITTEN = {  # by which command: the files of results, of every task that writes them
    "test": ("metrics.json", "results_summary.csv", "evaluation_results/metrics.json", "results_of.json"),
    "predict": ("predictions.jsonl", "results_of.json"),
    "validate": (),
}
LR = "--model.init_args.lr=0.05"  # so that what is trained answers otherwise


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task's folder with `out`, a run of it, and its options."""
    folder = tmp_path_factory.mktemp(request.param)
    options = CASES[request.param].prepare(tiny, folder)
    run([*fit_arguments(options, folder / "out"), LR, "--trainer.max_epochs=1"], folder / "out")
    if request.param == "vqa":
        options.append(f"--data.init_args.test_data={folder / 'val.json'}")
    (folder / "options.json").write_text(json.dumps(options))
    return request.param, folder


def evaluate(command: str, folder: Path, output: Path, *more: str) -> str:
    options = json.loads((folder / "options.json").read_text())
    common = ["--trainer.accelerator=cpu", "--data.init_args.num_workers=0", f"--trainer.default_root_dir={output}"]
    return run([command, *options, *common, f"--logs_dir={output / 'logs'}", *more], output)


def contents(output: Path, command: str) -> dict[str, str]:
    return {name: (output / name).read_text() for name in WRITTEN[command] if (output / name).is_file()}


def numbers(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith(("val_", "test_"))]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_best_adapter_is_used_and_no_other_replaces_its_results(
    command: str, trained: tuple[str, Path], tmp_path: Path
) -> None:
    task, folder = trained
    output, best = tmp_path / "out", folder / "out" / CASES[task].adapter
    copytree(best, output / best.name)
    named = evaluate(command, folder, output, f"--model.init_args.adapter={output / best.name}")
    assert f"Adapter: {output / best.name}." in named
    first = contents(output, command)
    found = evaluate(command, folder, output)
    assert f"Adapter: {output / best.name}, the best of {output}." in found
    assert "untrained" not in named + found
    assert numbers(found) == numbers(named)
    again = contents(output, command)
    if command == "test":  # a summary gets a line for each test
        first.pop("results_summary.csv", None), again.pop("results_summary.csv", None)
    assert again == first

    other = tmp_path / "other"
    copytree(best, other)
    (other / "adapter_config.json").write_text((other / "adapter_config.json").read_text() + "\n")
    said = evaluate(command, folder, output, f"--model.init_args.adapter={other}")
    kept = contents(output, command)
    kept.pop("results_summary.csv", None)
    assert kept == first
    if command != "validate":  # which writes nothing
        [own] = output.glob("results_*/")
        assert f"these go to {own}" in said
        assert json.loads((own / "results_of.json").read_text())["adapter"] == str(other)
        assert contents(own, command).keys() == contents(output, command).keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_what_has_no_adapter_says_so_on_screen_and_in_its_files(
    command: str, trained: tuple[str, Path], tmp_path: Path
) -> None:
    task, folder = trained
    said = evaluate(command, folder, tmp_path / "out")
    assert said.count("The model is untrained") == 1
    assert str(tmp_path / "out" / CASES[task].adapter) in said
    for name, text in contents(tmp_path / "out", command).items():
        if name.endswith(("metrics.json", "of.json")):
            assert json.loads(text)["adapter"] == "untrained", name
            assert json.loads(text)["adapter_sha256"] is None


def test_an_adapter_that_was_trained_again_replaces_its_own_results_and_says_so(
    trained: tuple[str, Path], tmp_path: Path
) -> None:
    task, folder = trained
    output = tmp_path / "out"
    best = output / CASES[task].adapter
    copytree(folder / "out" / best.name, best)
    evaluate("predict", folder, output)
    before = json.loads((output / "results_of.json").read_text())
    (best / "adapter_config.json").write_text((best / "adapter_config.json").read_text() + "\n")
    assert "they are replaced" in evaluate("predict", folder, output)
    after = json.loads((output / "results_of.json").read_text())
    assert (after["adapter"], after["adapter_sha256"] != before["adapter_sha256"]) == (before["adapter"], True)
    assert not list(output.glob("results_*/"))
