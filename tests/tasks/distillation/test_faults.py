"""One test for each fault of earlier code that must not come back (numbers as in docs/method.md)."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlavaNextProcessor

from lavic.batching.step_plan import MicroBatch
from lavic.errors import UserError
from lavic.files.rejected import Rejected
from lavic.model.prefix_reuse import segment_batch
from lavic.model.processor import load_processor, placeholder_ids
from lavic.model.views import cut_views
from lavic.model.visual_tokens import fill_placeholders
from lavic.tasks.distillation import batches
from lavic.tasks.distillation.batches import DescribedBatch, DescribedImages
from lavic.tasks.distillation.table import SampleSource, SampleTable, load_samples
from lavic.tasks.distillation.task import Distillation
from tests.conftest import Described, Fit, write_described

ADAPTER = "vision_lora_adapter_best"
SAVED = "Best LoRA adapter saved."


@pytest.fixture
def source(described: Described) -> SampleSource:
    """The 19 training samples."""
    folder = described.folder
    return SampleSource(folder / "item2meta_train.json", folder / "train_images", "five", 512, None, 42)


def table_of(
    source: SampleSource, tiny: Path, tmp_path: Path
) -> tuple[SampleTable, list[Rejected], LlavaNextProcessor]:
    processor = load_processor(str(tiny), source.views)
    return *load_samples(source, processor, tmp_path / "cache", strict=False), processor


def micro_batch(table: SampleTable, source: SampleSource, processor: LlavaNextProcessor, rows: Any) -> DescribedBatch:
    return DescribedImages(table, source.images_dir, processor)[MicroBatch(tuple(rows), step_targets=1)]


def test_fault_1_the_best_adapter_is_saved_when_its_loss_is_known(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([2.0, 1.0, 3.0])
    at_validation: list[dict[str, Tensor]] = []
    log = Distillation.log

    def pretend(self: Distillation, name: str, value: Any, **options: Any) -> None:
        if name == "val_loss":
            value = next(losses)
            at_validation.append({n: p.detach().clone() for n, p in self.named_parameters() if p.requires_grad})
        log(self, name, value, **options)

    def saved(output: Path) -> list[Tensor]:
        return list(load_file(output / ADAPTER / "adapter_model.safetensors").values())

    def among(tensor: Tensor, parameters: dict[str, Tensor]) -> bool:
        return any(tensor.shape == other.shape and torch.equal(tensor, other) for other in parameters.values())

    output = fit("--data.init_args.batch_size=8")  # one epoch, by the shipped YAML
    assert saved(output)
    assert "Val Loss: " in (output / "val_metrics_epoch_1.txt").read_text()

    monkeypatch.setattr(Distillation, "log", pretend)
    said = []
    monkeypatch.setattr("lavic.training.best_adapter.log.info", lambda text, *_: said.append(text.startswith(SAVED)))
    output = fit("--data.init_args.batch_size=8", "--trainer.max_epochs=3")
    assert sum(said) == 2  # not after the third epoch, which is worse
    assert all(among(tensor, at_validation[1]) for tensor in saved(output))
    assert not any(among(tensor, at_validation[2]) for tensor in saved(output))


def test_fault_2_a_batch_supervises_every_token_of_each_target_and_no_other(
    source: SampleSource, tiny: Path, tmp_path: Path
) -> None:
    table, _, processor = table_of(source, tiny, tmp_path)
    tokenizer = processor.tokenizer
    batch = micro_batch(table, source, processor, [0, 3, 7, 11])
    lengths = batch["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 1  # there is padding
    for row, index in enumerate([0, 3, 7, 11]):
        supervised = batch["labels"][row] != -100
        assert tokenizer.decode(batch["input_ids"][row][supervised]) == table.row(index)["description"] + "</s>"
        assert torch.equal(batch["labels"][row][supervised], batch["input_ids"][row][supervised])
        prompt = batch["input_ids"][row][: lengths[row]][~supervised[: lengths[row]]]
        assert tokenizer.decode(prompt).endswith("Assistant:")
        assert not supervised[lengths[row] :].any()


@pytest.mark.parametrize("views", ["five", "anyres"])
def test_fault_3_every_placeholder_gets_a_view_of_its_own_item(tiny: Path, tmp_path: Path, views: Any) -> None:
    sizes = {(80, 600): 3, (600, 80): 3, (300, 300): 5, (1500, 300): 4, (300, 1500): 4, (40, 40): 5}
    entries = []
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (60 + 30 * number, 128, 200)).save(tmp_path / f"B{number}_0.png")
        text = "The image shows a towel." * (number % 2 + 1)
        entries.append({"title": f"Towel {number}", "image_name": f"B{number}_0.png"})
        entries[-1]["image_description_llava_cleaned"] = text
    (tmp_path / "meta.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    source = SampleSource(tmp_path / "meta.jsonl", tmp_path, views, 512, None, 42)
    table, skipped, processor = table_of(source, tiny, tmp_path)
    assert not skipped
    counts = [5] * 6 if views == "five" else [table.row(i)["views"] for i in range(6)]
    assert min(counts) == (5 if views == "five" else 3)
    batch = micro_batch(table, source, processor, range(6))
    assert len(batch["views"]) == sum(counts)
    assert all(view.any() for view in batch["views"])  # none is empty

    # each view's colour says whose it is; it must arrive in that item's row, at that item's placeholders
    owners = ((batch["views"][:, 0].amax((1, 2)).float() - 60) / 30).round().view(-1, 1)
    ids = placeholder_ids(processor)
    filled = fill_placeholders(torch.full((*batch["input_ids"].shape, 1), -1.0), batch["input_ids"], owners, ids)
    for row, count in enumerate(counts):
        assert filled[row][filled[row] >= 0].tolist() == [float(row)] * count
        assert batch["input_ids"][row][filled[row, :, 0] >= 0].tolist() == ids[:count]
    segments = segment_batch(batch["input_ids"], batch["attention_mask"], batch["labels"], ids)
    rows = segments.placeholders // segments.ids.shape[1]
    assert rows.tolist() == owners.flatten().tolist() == sorted(rows.tolist())


def test_fault_4_eos_is_supervised_even_where_it_is_also_the_padding(
    source: SampleSource, tiny: Path, tmp_path: Path
) -> None:
    table, _, processor = table_of(source, tiny, tmp_path)
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    eos = processor.tokenizer.eos_token_id
    batch = micro_batch(table, source, processor, range(19))
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        assert batch["input_ids"][row, length - 1] == batch["labels"][row, length - 1] == eos
        assert (batch["labels"][row] == eos).sum() == 1
    assert (batch["input_ids"] == eos).sum() > 19  # the padding


def test_fault_5_long_titles_are_shortened_and_targets_and_placeholders_kept(
    source: SampleSource, tiny: Path, tmp_path: Path
) -> None:
    whole, _, processor = table_of(source, tiny, tmp_path)
    limit = int(whole.lengths().max()) + 20
    titles = {"short": "Towel", "long": "Towel of cotton, " * 80, "hopeless": "Towel"}
    texts = {"short": "A red towel.", "long": "A blue towel.", "hopeless": "A very long text. " * 120}
    catalogue = {}
    for name in titles:
        Image.new("RGB", (90, 90), "red").save(tmp_path / f"{name}_0.png")
        catalogue[name] = {
            "title": titles[name],
            "image_descriptions_llava_cleaned": {f"{name}_0.png": texts[name]},
        }
    (tmp_path / "meta.json").write_text(json.dumps(catalogue))
    cut = replace(source, metadata=tmp_path / "meta.json", images_dir=tmp_path, max_length=limit)
    table, skipped, _ = table_of(cut, tiny, tmp_path)
    assert table.column("item") == ["short", "long"]
    assert [(entry.where, entry.reason) for entry in skipped] == [("hopeless_0.png", "too long for max_length")]
    for row in map(table.row, range(2)):
        ids = row["input_ids"].tolist()
        assert len(ids) <= limit
        assert [token for token in ids if token in placeholder_ids(processor)] == placeholder_ids(processor)
        target = ids[row["target_start"] :]
        assert processor.tokenizer.decode(target) == texts[row["item"]] + "</s>"
        assert "This product's title is: Towel" in processor.tokenizer.decode(ids)
    assert len(table.row(1)["input_ids"]) > limit - 10  # no more was cut off than needed


def test_fault_6_samples_without_a_whole_image_are_left_out_and_listed(fit: Fit, tmp_path: Path) -> None:
    broken = write_described(tmp_path / "data", train=9, valid=3)
    names = sorted(path.name for path in (broken.folder / "train_images").iterdir())
    missing, empty, cut, page = (broken.folder / "train_images" / name for name in names[:4])
    missing.unlink()
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-200])
    page.write_text("<html>404</html>")
    output = fit(*broken.flags(), "--data.init_args.batch_size=5", "--trainer.limit_val_batches=0")
    listed = [json.loads(line) for line in (output / "skipped_samples.jsonl").read_text().splitlines()]
    assert {entry["where"]: entry["reason"] for entry in listed} == {
        missing.name: "image missing",
        empty.name: "image empty",
        cut.name: "image broken",
        page.name: "image broken",
    }
    assert {entry["split"] for entry in listed} == {"train"}
    [run] = (output.parent / "logs").glob("*/run.json")
    about = json.loads(run.read_text())
    assert about["train_samples"] == 5
    assert about["skipped"] == {"image missing": 1, "image empty": 1, "image broken": 2}
    with pytest.raises(UserError, match=r"cannot be used \(image"):
        fit(*broken.flags(), "--data.init_args.strict=true")


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes have no types
    """Counts what would make a GPU's host wait: `.item()`, `bool(tensor)` and the like."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's modes have no types
        self.waits = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.waits += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_fault_7_workers_cut_the_images_and_a_step_reads_nothing_back(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note_the_process(*args: Any) -> Tensor:
        (tmp_path / f"process_{os.getpid()}").touch()
        return cut_views(*args)

    monkeypatch.setattr(batches, "cut_views", note_the_process)
    watch = NoWaiting()
    dtypes: set[torch.dtype] = set()
    token_loss, visual_tokens = Distillation.token_loss, Distillation.visual_tokens

    def watched_loss(self: Distillation, batch: DescribedBatch, visual: Tensor) -> Tensor:
        dtypes.add(batch["views"].dtype)
        with watch:
            return token_loss(self, batch, visual)

    def watched_tokens(self: Distillation, views: Tensor) -> Tensor:
        with watch:
            return visual_tokens(self, views)

    monkeypatch.setattr(Distillation, "token_loss", watched_loss)
    monkeypatch.setattr(Distillation, "visual_tokens", watched_tokens)
    fit("--data.init_args.num_workers=1", "--data.init_args.batch_size=8", "--trainer.limit_val_batches=0")
    assert list(tmp_path.glob("process_*"))
    assert not (tmp_path / f"process_{os.getpid()}").exists()
    assert dtypes == {torch.uint8}
    assert watch.waits == 0


def test_fault_8_max_samples_takes_a_seeded_random_choice(source: SampleSource, tiny: Path, tmp_path: Path) -> None:
    first = table_of(source, tiny, tmp_path)[0].column("image")[:6]
    chosen = {
        seed: table_of(replace(source, max_samples=6, seed=seed), tiny, tmp_path)[0].column("image") for seed in (1, 2)
    }
    again = table_of(replace(source, max_samples=6, seed=1), tiny, tmp_path / "elsewhere")[0].column("image")
    assert chosen[1] == again
    assert len(set(chosen[1])) == 6
    sets = [set(first), set(chosen[1]), set(chosen[2])]
    assert all(one != other for one, other in itertools.combinations(sets, 2))
