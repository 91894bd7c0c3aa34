"""A mistake of any kind, on any command: status 2, one short sentence, nothing of a library, and no PyTorch for it."""

import subprocess
import sys
from pathlib import Path

import pytest

import lavic.__main__

DATA, MODEL = "--data.init_args.", "--model.init_args."
TASKS = ("fit", "validate", "test", "predict", "plan")
INNER = ("class '", "Traceback", "Expected a <", "jsonargparse", "typing.", "NestedArg", "Parser key")
LONGEST = 300  # letters

# what is wrong: the arguments behind `--config distill`, and what the sentence names
OF_A_TASK: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text for a count": ((f"{DATA}batch_size", "many"), ("batch_size", "many", "whole number")),
    "a fraction for a count": ((f"{DATA}batch_size", "1.5"), ("batch_size", "1.5")),
    "zero": ((f"{DATA}batch_size", "0"), ("batch_size is 0", "at least 1")),
    "no new tokens": ((f"{MODEL}max_new_tokens", "0"), ("max_new_tokens is 0", "at least 1")),
    "fewer than no new tokens": ((f"{MODEL}max_new_tokens", "-3"), ("max_new_tokens is -3",)),
    "a negative decay": ((f"{MODEL}weight_decay", "-1"), ("weight_decay is -1",)),
    "not a number": ((f"{MODEL}lr", "nan"), ("lr is nan", "above 0")),
    "a seed below 0": (("--seed_everything", "-1"), ("seed_everything is -1",)),
    "a word for a switch": ((f"{DATA}strict", "perhaps"), ("strict", "perhaps", "true or false")),
    "no such choice": ((f"{MODEL}base.dtype", "float12"), ("float12", "bfloat16")),
    "a list for a path": ((f"{DATA}train_data", "[1, 2]"), ("train_data", "path")),
    "a number for options": ((f"{MODEL}part_lr", "3"), ("part_lr", "3")),
    "a word for a rate": ((f"{MODEL}part_lr", "{vision: fast}"), ("part_lr", "fast", "number")),
    "a wrong nested name": ((f"{MODEL}trainable.lora.rank", "3"), ("trainable.lora.rank", "alpha")),
    "a name off by a letter": ((f"{DATA}bach_size", "3"), ("bach_size", "did you mean", "batch_size")),
    "a wrong section": (("--modle.lr", "3"), ("modle", "did you mean model")),
    "a wrong option of the trainer": (("--trainer.max_epoch", "3"), ("max_epoch", "did you mean", "max_epochs")),
    "text for the trainer's number": (("--trainer.max_epochs", "many"), ("max_epochs", "many")),
    "arguments of no logger": (("--trainer.logger.init_args.nope", "1"), ("trainer.logger", "class_path")),
    "a wrong argument of a logger": (
        ("--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.init_args.nope", "1"),
        ("logger.init_args.nope", "save_dir"),
    ),
    "no such class": (("--model.class_path", "lavic.tasks.distillation.Nothing"), ("distillation.Nothing",)),
    "no such module": (("--model.class_path", "nowhere.Task"), ("nowhere.Task",)),
    "accumulation of none": (("--trainer.accumulate_grad_batches", "0"), ("accumulate_grad_batches is 0",)),
    "a checkpoint's text for a number": (("--checkpoint.every_n_steps", "few"), ("every_n_steps", "few")),
    "no patience": (("--early_stop.patience", "0"), ("patience is 0",)),
}
OF_THE_PARSER = {  # which the sources do not tell
    "an option of no logger": (("--trainer.logger.foo", "1"), ("trainer.logger.foo", "class_path")),
    "another kind of class": (("--model", "pathlib.Path"), ("pathlib.Path",)),
    "a short name of no class": (("--model", "Distilation"), ("Distilation",)),
    "a callback of no package": (("--trainer.callbacks", "nowhere.Callback"), ("nowhere.Callback",)),
    "a logger of no package": (("--trainer.logger", "nowhere"), ("nowhere",)),
}
OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no task": (("fit",), ("class_path", "--config")),
    "no stage 2": (("embed", "--config", "distill"), ("Distillation", "Recommendation")),
    "no stage 2 for the shop": (("web", "--config", "distill"), ("Distillation", "Recommendation")),
    "no method": (("recommend", "--config", "recommend", "--method", "magic"), ("magic", "bm25")),
    "no candidates": (("recommend", "--config", "recommend", "--candidates", "0"), ("candidates is 0",)),
    "nothing shown": (("recommend", "--config", "recommend", "--top", "0"), ("top is 0",)),
    "no port": (("web", "--port", "99999"), ("port", "99999", "65535")),
    "a word for a port": (("web", "--port", "abc"), ("port", "abc", "whole number")),
    "no batch": (("embed", "--config", "recommend", "--batch_size", "0"), ("batch_size is 0",)),
    "text of a batch": (("embed", "--config", "recommend", "--batch_size", "x"), ("batch_size", "x")),
    "no tokens of a prompt": (("plan", "--config", "distill", "--prompt_tokens", "0"), ("prompt_tokens is 0",)),
    "no words": (("describe", "--max_new_tokens", "0"), ("max_new_tokens is 0",)),
    "no workers": (("describe", "--num_workers", "-1"), ("num_workers is -1",)),
    "no dtype": (("describe", "--base.dtype", "int3"), ("base.dtype", "int3")),
    "what is not described": (("describe", "--picture", "x"), ("picture", "prompt")),
    "a missing file": (("retrieve", "--conversations", "c", "--metadata", "m"), ("out",)),
    "text for k": (("retrieve", "--conversations", "c", "--metadata", "m", "--out", "o", "--k", "x"), ("k is x",)),
    "a share over 1": (("import", "table.csv", "--out", "o", "--valid_share", "2"), ("valid_share is 2",)),
    "a share in words": (("import", "table.csv", "--out", "o", "--valid_share", "half"), ("valid_share", "half")),
    "an interval in words": (("monitor", "--interval", "soon"), ("interval", "soon")),
    "too many runs": (("report", "a", "b"), ("b",)),
    "resamples in words": (("compare", "a", "b", "--resamples", "x"), ("resamples", "x")),
    "no architecture": (
        ("compose", "--vision", "a", "--language", "b", "--out", "c", "--architecture", "gpt"), ("gpt", "llava_next"),
    ),
    "half of a model": (("compose", "--vision", "a"), ("language", "out")),
    "no dtype to export": (("export", "--adapter", "a", "--out", "b", "--dtype", "int3"), ("int3",)),
    "no stage of the demo": (("demo", "--stage", "7"), ("stage is 7",)),
    "no such command": (("bake",), ("bake",)),
}  # fmt: skip


def sentence(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a mistake gets."""
    status = lavic.__main__.main(list(argv))
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    assert not [word for word in INNER if word in err], err
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert lines[0].endswith((".", "?")), err
    assert len(lines[0]) < LONGEST, err
    return lines[0]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.csv").write_text("id,title\n1,A mug\n")
    (tmp_path / "c").write_text('{"context": "a mug"}\n')
    (tmp_path / "m").write_text('{"A1": {"title": "A mug"}}')
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", TASKS)
@pytest.mark.parametrize("what", OF_A_TASK)
def test_a_mistake_in_a_task(command: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, named = OF_A_TASK[what]
    said = sentence(capsys, command, "--config", "distill", *arguments)
    assert not [name for name in named if name not in said], said


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize("what", OF_THE_PARSER)
def test_a_mistake_that_the_parser_finds(command: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, named = OF_THE_PARSER[what]
    said = sentence(capsys, command, "--config", "distill", *arguments)
    assert not [name for name in named if name not in said], said


@pytest.mark.parametrize("what", OTHERS)
def test_a_mistake_in_another_command(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, named = OTHERS[what]
    said = sentence(capsys, *arguments)
    assert not [name for name in named if name not in said], said


@pytest.mark.parametrize("way", [["--metadata", "m", "n"], ["--metadata=m,n"], ["--metadata", "[m, n]"]])
def test_a_list_is_given_as_a_person_types_it(way: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("n").write_text('{"A2": {"title": "A lamp"}}')
    arguments = ["retrieve", "--conversations", "c", *way, "--out", "o", "--k", "2"]
    assert lavic.__main__.main(arguments) == 0
    assert "of 2 items" in capsys.readouterr().out
    assert lavic.__main__.main([*arguments[:-4], "--output", "old", "--k", "2"]) == 0, "the word of 0.2"
    assert Path("old").is_file()


WITHOUT_TORCH = """
import sys
import lavic.__main__
for words in sys.argv[1:]:
    command = words.split("|")
    try:
        status = lavic.__main__.main(command)
    except SystemExit as ended:
        status = ended.code or 0
    heavy = {"torch", "transformers", "lightning", "peft", "bitsandbytes", "torchmetrics", "gradio"}
    print("::", status, words, sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""


def test_help_and_mistakes_import_no_library_of_models() -> None:
    """Asked of the modules, never of the clock."""
    mistakes = [
        "|".join([command, "--config", "distill", *given]) for command in TASKS for given, _ in OF_A_TASK.values()
    ]
    mistakes += ["|".join(given) for given, _ in OTHERS.values()]
    mistakes += [
        "|".join([command, "--config", "nowhere"]) for command in (*TASKS, "embed", "recommend", "web", "train")
    ]
    helps = ["|".join([command, "--help"]) for command in lavic.__main__.COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *helps, *mistakes], capture_output=True, text=True, check=True
    )
    seen = [line for line in done.stderr.splitlines() if line.startswith("::")]
    expected = [f":: 0 {words} []" for words in helps] + [f":: 2 {words} []" for words in mistakes]
    assert seen == expected
