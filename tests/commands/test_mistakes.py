"""Every command: a mistake is one sentence on standard error and exit status 2, and standard output stays clean."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import lavic.__main__
from tests.small_runs import train_event, validation_event, write_run

ROOT = Path(__file__).parents[2]
NEEDS_TASK = ("fit", "validate", "test", "predict", "plan", "embed", "recommend", "web", "train")
TAKES_CONFIG = (*NEEDS_TASK, "describe", "retrieve")
DATA, MODEL = "--data.init_args.", "--model.init_args."


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with wrong files in it, from which the commands are run; the log's handlers are put back."""
    for name, content in {
        "empty.yaml": b"", "list.yaml": b"- 1\n- 2\n", "text.yaml": b"hello\n", "broken.yaml": b"model: {a: [1\n",
        "latin.yaml": "model: caf\u00e9\n".encode("latin-1"), "unknown.yaml": b"no_such_section: {a: 1}\n",
        "wrong_type.yaml": b"data: {init_args: {batch_size: many}}\n", "table.csv": b"a,b\n1,2\n", "note.txt": b"hello",
        "conversations.jsonl": b'{"context": "a hat?", "gt_items": ["1"]}\n',
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAVIC_RUN_ID", "training_20260101_000000")
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before


def mistake(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Runs a command that must fail; returns its one sentence."""
    status = lavic.__main__.main(list(argv))
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert "usage:" not in err
    sentences = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, err
    return sentences[0]


@pytest.mark.parametrize("command", sorted(lavic.__main__.COMMANDS))
def test_an_unknown_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "demo":
        pytest.skip("passes what it does not know on to fit")
    assert "no_such_flag" in mistake(capsys, command, "--no_such_flag", "1")


UNREADABLE = "/proc/self/mem"  # a file whose reading fails, for every user
CONFIGS = {
    "no file": "nowhere.yaml", "a folder": "folder", "empty": "empty.yaml", "a list": "list.yaml", "text": "text.yaml",
    "not YAML": "broken.yaml", "not UTF-8": "latin.yaml", "unknown section": "unknown.yaml", "too long": "x" * 5000,
    "NUL": "a\0b", "unreadable": UNREADABLE,
}  # fmt: skip


@pytest.mark.parametrize("command", TAKES_CONFIG)
@pytest.mark.parametrize("what", CONFIGS)
def test_a_wrong_configuration(command: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    mistake(capsys, command, "--config", CONFIGS[what])


@pytest.mark.parametrize("command", TAKES_CONFIG)
def test_a_flag_without_its_value(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--config has no value" in mistake(capsys, command, "--config")


OPTIONS = {
    "type in YAML": ("--config", "wrong_type.yaml"),
    "text for a number": (f"{DATA}batch_size", "many"),
    "zero": (f"{DATA}batch_size", "0"),
    "negative": (f"{DATA}num_workers", "-1"),
    "negative rate": (f"{MODEL}lr", "-1"),
    "unknown class": ("--model.class_path", "lavic.tasks.distillation.Nothing"),
    "another kind of class": ("--model", "pathlib.Path"),
    "no such dtype": (f"{MODEL}base.dtype", "float12"),
    "no such option": (f"{MODEL}no_such_option", "1"),
}


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "plan"])
@pytest.mark.parametrize("what", OPTIONS)
def test_a_wrong_option(command: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    mistake(capsys, command, "--config", "distill", *OPTIONS[what])


RUNNING = {
    "a dtype that the device has not": (f"{MODEL}base.dtype", "float16"),
    "no such model": (f"{MODEL}base.name", "./nowhere"),
    "a file for a model": (f"{MODEL}base.name", "./note.txt"),
    "a file for the output": ("--trainer.default_root_dir", "note.txt"),
    "NUL in the output": ("--trainer.default_root_dir", "a\0b"),
    "an output name that is too long": ("--trainer.default_root_dir", "x" * 5000),
    "no such accelerator": ("--trainer.accelerator", "quantum"),
    "no such strategy": ("--trainer.strategy", "hope"),
    "no such precision": ("--trainer.precision", "7"),
    "a folder for data": (f"{DATA}val_data", "folder"),
    "a table for metadata": (f"{DATA}val_data", "table.csv"),
    "unreadable data": (f"{DATA}val_data", UNREADABLE),
}


@pytest.mark.parametrize("command", ["fit", "validate"])
@pytest.mark.parametrize("what", RUNNING)
def test_what_cannot_run(command: str, what: str, capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    good = (f"{MODEL}base.name", str(tiny), "--trainer.accelerator", "cpu", "--trainer.default_root_dir", "out")
    mistake(capsys, command, "--config", "distill", *good, *RUNNING[what])


@pytest.mark.parametrize("command", ["fit", "plan"])
@pytest.mark.parametrize(
    ("trainable", "said"),
    [("{projector: frozen, language: frozen}", "is frozen; set at least one"), ("half", "freeze_vision"),
     ("{lora: {r: 0}}", "lora.r is 0")],
)  # fmt: skip
def test_what_a_part_refuses_is_said_by_itself(
    command: str, trainable: str, said: str, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    """The parser tries parts given one by one and short names, and tells of both."""
    good = (f"{MODEL}base.name", str(tiny), "--trainer.accelerator", "cpu", "--trainer.default_root_dir", "out")
    assert said in mistake(capsys, command, "--config", "instruct", *good, f"{MODEL}trainable", trainable)


def test_the_other_stages_file(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("embed", "recommend", "web"):
        assert "Recommendation" in mistake(capsys, command, "--config", "distill")


OTHERS = {
    "no command": ("bake",),
    "no run": ("monitor", "--logs", "nowhere"),
    "a file of runs": ("monitor", "--logs", "note.txt"),
    "no interval": ("monitor", "--interval", "0"),
    "no report": ("report", "--logs", "nowhere"),
    "no such run": ("report", "nowhere"),
    "nothing to compare": ("compare",),
    "no such test": ("compare", "nowhere", "folder"),
    "no resamples": ("compare", "folder", "folder", "--resamples", "0"),
    "no table": ("import", "nowhere.csv", "--out", "data"),
    "an unreadable table": ("import", UNREADABLE, "--out", "data"),
    "a folder for a table": ("import", "folder", "--out", "data"),
    "a table without an ID": ("import", "table.csv", "--out", "data"),
    "no conversations": ("retrieve", "--conversations", "nowhere", "--metadata", "[note.txt]", "--output", "o.jsonl"),
    "unreadable conversations": (
        "retrieve",
        "--conversations",
        UNREADABLE,
        "--metadata",
        "[note.txt]",
        "--output",
        "o.jsonl",
    ),
    "an unreadable catalogue": (
        "retrieve",
        "--conversations",
        "conversations.jsonl",
        "--metadata",
        f"[{UNREADABLE}]",
        "--output",
        "o.jsonl",
    ),
    "no tower": ("compose", "--vision", "./nowhere", "--language", "./nowhere", "--out", "new"),
    "no adapter": ("export", "--adapter", "nowhere", "--out", "new"),
    "nothing to serve": ("web",),
    "no GPU of that name": ("plan", "--config", "distill", "--gpu", "abacus"),
    "no stage": ("demo", "--stage", "7"),
    "a flag that is none": ("train", "fast"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_commands_mistakes(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    mistake(capsys, *OTHERS[what])


@pytest.mark.parametrize("content", ["", "[]", "hello", "{"])
@pytest.mark.parametrize("command", ["monitor", "report"])
def test_a_run_whose_file_is_broken(content: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("logs/training_x")
    run.mkdir(parents=True)
    (run / "run.json").write_text(content)
    mistake(capsys, command)


def test_results_alone_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lavic.__main__.main(["plan", "--config", "distill", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trainable_parameters"] == 3_645_440
    write_run(tmp_path / "logs", "training_20260101_000000", [train_event(10, 2.5), validation_event(20, 2.25)])
    assert lavic.__main__.main(["report"]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")
    assert lavic.__main__.main(["monitor", "--summary"]) == 0
    assert "val_loss" in capsys.readouterr().out
