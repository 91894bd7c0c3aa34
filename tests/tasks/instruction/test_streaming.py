"""Streaming gives the batches, the list of what is left out, the losses and the resumed run of a table, exactly."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lavic.errors import UserError
from lavic.tasks.instruction.data import InstructionData
from lavic.tasks.instruction.table import RecordStream
from tests.instruction_files import write_instruction_files
from tests.training.command_line import ROOT, losses, run, validation

ODD = [
    "{broken", '"not an object"', '{"id": "none", "conversations": []}',
    json.dumps({"id": "gone", "image": "gone.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"},
                                                                    {"from": "gpt", "value": "A towel."}]}),
    json.dumps({"conversations": [{"from": "human", "value": "Wie heißt 日本 auf 😀?"},
                                  {"from": "gpt", "value": "Ja\ud83d."}]}),
]  # fmt: skip
FORMS = ("lines", "crlf", "bom", "utf-16", "gzip", "list")


def write(folder: Path, form: str = "lines") -> int:
    """`train` and `val` with odd lines among the good ones; how many entries `train` has."""
    if not (folder / "images").exists():
        write_instruction_files(folder, seen=9, text=7, val=4)
    good = [json.dumps(r, ensure_ascii=False) for r in json.loads((folder / "train.json").read_text())]
    lines = [line for i, one in enumerate(good) for line in (one, *ODD[i : i + 1])]
    if form == "list":
        lines = [line for line in lines if line != ODD[0]]
        text = "[" + ",\n".join(lines) + "]"
    else:
        text = ("\r\n" if form == "crlf" else "\n").join(lines) + "\n"
    encoding = {"bom": "utf-8-sig", "utf-16": "utf-16"}.get(form, "utf-8")
    data = text.encode(encoding)
    (folder / "train.jsonl").write_bytes(gzip.compress(data) if form == "gzip" else data)
    return len(lines)


def data_of(folder: Path, tiny: Path, streaming: bool, world: int = 1, rank: int = 0, **more: Any) -> InstructionData:
    options: dict[str, Any] = {"batch_size": 3, "num_workers": 0, "template": "mistral", "max_length": 900, **more}
    data = InstructionData(
        folder / "train.jsonl", folder / "val.json", folder / "images", model_name=str(tiny),
        cache_dir=folder / "cache", streaming=streaming, **options,
    )  # fmt: skip
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        accumulate_grad_batches=2, world_size=world, global_rank=rank, is_global_zero=rank == 0,
        default_root_dir=str(folder / "out"), state=SimpleNamespace(fn="fit"),
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    return data


def assert_same(one: Any, other: Any) -> None:
    """Batches with the same tensors and numbers in them, bit for bit."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    else:
        assert one == other


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_streams_as_it_is_read(form: str, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    given = write(folder, form)
    table, stream = (data_of(folder, tiny, streaming) for streaming in (False, True))
    assert isinstance(stream.tables["train"], RecordStream)
    for split in ("train", "val"):
        one, other = table.tables[split], stream.tables[split]
        assert len(one) == len(other) > 5
        for own, streamed in zip(table.lengths(split), stream.lengths(split), strict=True):
            assert own.tolist() == streamed.tolist()
        assert table.kinds(split).tolist() == stream.kinds(split).tolist()
        for index in range(len(one)):
            row, streamed_row = one.row(index), other.row(index)
            assert row.pop("input_ids").tolist() == streamed_row.pop("input_ids").tolist()
            assert row == streamed_row
    assert table.left_out == stream.left_out
    listed = Counter(one.split for one in stream.left_out)
    assert len(stream.tables["train"]) + listed["train"] == given
    assert listed["train"] == given - 17
    assert table.fingerprint() == stream.fingerprint()
    assert stream.tables["val"].path.stat().st_size < table.tables["val"].path.stat().st_size


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2])
def test_batches_are_those_of_a_table(world: int, workers: int, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    write(folder)
    for epoch in range(2):
        seen: list[int] = []
        kinds: list[list[bool]] = []
        for rank in range(world):
            pair = [data_of(folder, tiny, streaming, world, rank, num_workers=workers) for streaming in (False, True)]
            loaders = [data.train_dataloader() for data in pair]
            for loader in loaders:
                loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            batches = [list(loader) for loader in loaders]
            assert len(batches[0]) == len(batches[1]) == len(loaders[0])
            for one, other in zip(*batches, strict=True):
                assert_same(one, other)
            seen += [row for b in batches[1] if (b["labels"] >= 0).any() for row in b["rows"]]
            kinds.append(["views" in batch for batch in batches[1]])
            if epoch == 0:
                for one, other in zip(*(data.val_dataloader() for data in pair), strict=True):
                    assert_same(one, other)  # the control's images too
        assert Counter(seen) == Counter(range(17)), "each record once an epoch"
        assert all(len(set(together)) == 1 for together in zip(*kinds, strict=True))


@pytest.mark.parametrize("taken", [0, 1, 3, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_with_the_next_record(taken: int, workers: int, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    write(folder)
    whole = list(data_of(folder, tiny, True).train_dataloader())
    cut = data_of(folder, tiny, True, num_workers=workers).train_dataloader()
    batches = iter(cut)
    before = [next(batches) for _ in range(taken)]
    state = cut.state_dict()  # type: ignore[attr-defined]
    again = data_of(folder, tiny, streaming=False, num_workers=workers).train_dataloader()  # a table takes it over
    again.load_state_dict(state)  # type: ignore[attr-defined]
    for one, other in zip(whole, [*before, *again], strict=True):
        assert_same(one, other)


def test_a_file_that_changed_is_read_anew_and_one_that_changes_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    write(folder)
    data = data_of(folder, tiny, True)
    before = data.fingerprint()
    table = data.tables["train"]
    table.row(3)
    text = (folder / "train.jsonl").read_text()
    (folder / "train.jsonl").write_text(text.replace("towel", "cloth"))
    with pytest.raises(UserError, match=r"train\.jsonl has changed"):
        table.row(3)
    again = data_of(folder, tiny, True)
    assert again.tables["train"].path != table.path
    assert again.fingerprint() != before
    assert "cloth" in " ".join(again.tables["train"].row(i)["answer"] for i in range(17))


def test_a_copy_that_was_deleted_is_made_again(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    write(folder, "gzip")
    first = data_of(folder, tiny, True).tables["train"].row(5)
    [copy] = (folder / "cache").glob("text-*")  # val is a plain list
    copy.unlink()
    assert data_of(folder, tiny, True).tables["train"].row(5)["question"] == first["question"]


def test_a_choice_is_the_same_and_as_large_as_it_was_asked_for(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    write(folder)
    ids = [
        [data.tables["train"].row(i)["id"] for i in range(len(data.tables["train"]))]
        for data in (data_of(folder, tiny, s, max_samples=n, seed=seed)
                     for s in (False, True) for n, seed in ((6, 1), (6, 2), (17, 1), (99, 1)))
    ]  # fmt: skip
    assert ids[:4] == ids[4:]
    assert [len(chosen) for chosen in ids[:4]] == [6, 6, 17, 17]
    assert ids[0] != ids[1]
    assert all(len(set(chosen)) == len(chosen) for chosen in ids)


@pytest.mark.slow
def test_fits_are_the_same_and_resume_in_either_way(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    write(folder)
    option = "--data.init_args."

    def fit(name: str, streaming: bool, *more: str, processes: int = 1, workers: int = 0) -> Path:
        out = tmp_path / name
        run(
            [
                "fit", f"--config={ROOT}/configs/instruct.yaml", f"--model.init_args.base.name={tiny}",
                f"{option}train_data={folder / 'train.jsonl'}", f"{option}val_data={folder / 'val.json'}",
                f"{option}images_dir={folder / 'images'}", f"{option}template=mistral",
                f"{option}entry={{tokens: patch, shape: null}}", "--model.init_args.entry={tokens: patch, shape: null}",
                f"{option}cache_dir={folder / 'cache'}",
                f"{option}max_length=900", f"{option}batch_size={4 // processes}", f"{option}num_workers={workers}",
                f"{option}streaming={str(streaming).lower()}", "--trainer.accelerator=cpu",
                "--trainer.precision=32-true", "--model.init_args.trainable.lora.dropout=0",
                "--trainer.accumulate_grad_batches=1", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1",
                "--checkpoint.every_n_steps=1", f"--trainer.default_root_dir={out}", f"--logs_dir={out / 'logs'}",
                "--model.init_args.max_new_tokens=2", "--model.init_args.scheduler=null",
                "--model.init_args.lr=0.002", *more,
            ],
            out, processes, strategy="ddp" if processes > 1 else None,
        )  # fmt: skip
        return out

    table, stream = fit("table", False), fit("stream", True, workers=2)
    two = fit("two", True, processes=2)
    parts = fit("parts", True, "--trainer.max_steps=3")
    fit("parts", True, "--resume")
    assert len(losses(table)) == 10
    assert losses(stream) == losses(parts) == losses(table)
    assert losses(two) == pytest.approx(losses(table), rel=1e-4)
    same = ("val_loss", "visual_gain", "samples")
    values = [{name: validation(out)[name] for name in same} for out in (table, stream, parts, two)]
    assert values[0] == values[1] == values[2]
    assert values[3] == pytest.approx(values[0], abs=1e-4)
    [line] = re.findall(r'.*"where": "gone".*', (stream / "skipped_samples.jsonl").read_text())
    assert json.loads(line)["reason"] == "image missing"
