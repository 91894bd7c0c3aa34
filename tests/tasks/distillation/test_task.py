"""Stage 1 through the real command line: what a run writes is what plain libraries and plain arithmetic say."""

import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from lavic.batching.controls import partners_of
from lavic.commands import fit as cli
from lavic.model.speedups import Speedups
from lavic.tasks.distillation.batches import DescribedBatch
from lavic.tasks.distillation.task import Distillation
from tests.conftest import Described, Fit

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
ADAPTER = "vision_lora_adapter_best"
NO_DROPOUT = "--model.init_args.trainable.lora.dropout=0"
UNHURRIED = [f"--model.init_args.speedups.{field.name}=false" for field in fields(Speedups)]


def batch(size: int, accumulate: int = 1) -> list[str]:
    return [f"--data.init_args.batch_size={size}", f"--trainer.accumulate_grad_batches={accumulate}"]


def events(output: Path, event: str) -> list[dict[str, Any]]:
    """What the run that wrote `output` noted in its metrics.jsonl."""
    run = f"training_20260101_{int(output.name.rpartition('_')[2]):06d}"
    lines = (output.parent / "logs" / run / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def weights(output: Path) -> dict[str, Tensor]:
    return load_file(output / ADAPTER / "adapter_model.safetensors")


def last_weights(output: Path) -> dict[str, Tensor]:
    """The trained parameters where the run ended."""
    return dict(torch.load(output / "last.ckpt", weights_only=True)["state_dict"])


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=atol, msg=partial("{}: {}".format, name))


Run = Callable[..., Path]


@pytest.fixture
def run(fit: Fit, tiny: Path, described: Described, tmp_path: Path) -> Run:
    """`run(command, *options)`: the commands other than `fit`; returns the output directory."""
    numbers = itertools.count()

    def run(command: str, *options: str) -> Path:
        output = tmp_path / f"{command}_{next(numbers)}"
        cli.main(
            [
                command, "--config", "configs/distill.yaml", f"--model.init_args.base.name={tiny}", *described.flags(),
                "--data.init_args.num_workers=0", "--trainer.accelerator=cpu", "--model.init_args.max_new_tokens=8",
                f"--trainer.default_root_dir={output}", f"--logs_dir={tmp_path / 'logs'}", *options,
            ]
        )  # fmt: skip
        return output

    return run


@pytest.fixture
def trained_task(monkeypatch: pytest.MonkeyPatch) -> list[Distillation]:
    """The tasks that the command line made, in order; they stay after the run."""
    made: list[Distillation] = []
    configure = Distillation.configure_model

    def remember(self: Distillation) -> None:
        if self not in made:
            made.append(self)
        configure(self)

    monkeypatch.setattr(Distillation, "configure_model", remember)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("views", ["five", "anyres"])
def test_an_independent_script_computes_the_same_val_loss(
    fit: Fit, tiny: Path, described: Described, views: str
) -> None:
    output = fit(*batch(4), f"--data.init_args.views={views}")
    arguments = [tiny, output / ADAPTER, described.folder / "item2meta_valid.jsonl", described.folder / "valid_images"]
    script = Path(__file__).parents[2] / "independent_val_loss.py"
    assert "lavic" not in re.findall(r"^\s*(?:import|from) (\w+)", script.read_text(), re.MULTILINE)
    run = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    recomputed = json.loads(run.stdout)
    best = min(events(output, "validation"), key=lambda entry: float(entry["val_loss"]))
    assert recomputed["samples"] == best["samples"] == described.valid
    assert recomputed["val_loss"] == pytest.approx(best["val_loss"], abs=1e-5)
    assert best["val_perplexity"] == pytest.approx(math.exp(best["val_loss"]), rel=1e-6)


def test_val_loss_does_not_depend_on_the_batch_size(run: Run, trained_task: list[Distillation]) -> None:
    found = []
    for size in (1, 4):
        run("validate", *batch(size))
        found.append({name: float(value) for name, value in trained_task[-1].trainer.callback_metrics.items()})
    assert abs(found[0]["visual_gain"]) > 1e-3
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6, abs=1e-5)


@pytest.mark.slow
def test_batch_and_accumulation_split_a_step_in_any_way(fit: Fit) -> None:
    # 19 samples in steps of 8: the third step of each epoch has three
    splits = [batch(1, 8), batch(8), batch(4, 2)]
    common = [NO_DROPOUT, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
    outputs = [fit(*split, *common) for split in splits]
    losses = [[entry["train_loss"] for entry in events(output, "train")] for output in outputs]
    val_losses = [[entry["val_loss"] for entry in events(output, "validation")] for output in outputs]
    assert len(losses[0]) == 6
    assert len(val_losses[0]) == 2
    assert val_losses[0][-1] < val_losses[0][0] - 0.01
    for other in (1, 2):
        assert losses[other] == pytest.approx(losses[0], abs=1e-5)
        assert val_losses[other] == pytest.approx(val_losses[0], abs=1e-5)
        assert_same(last_weights(outputs[other]), last_weights(outputs[0]), atol=2e-5)


def test_the_first_steps_loss_is_the_mean_over_all_its_supervised_tokens(fit: Fit, monkeypatch: Any) -> None:
    seen: list[tuple[float, int]] = []
    token_loss = Distillation.token_loss

    def remember(self: Distillation, batch: DescribedBatch, visual_tokens: Tensor) -> Tensor:
        loss = token_loss(self, batch, visual_tokens)
        if self.trainer.training:
            seen.append((float(loss.detach()), int(batch["labels"].ne(-100).sum())))
        return loss

    monkeypatch.setattr(Distillation, "token_loss", remember)
    output = fit(*batch(3, 2), "--trainer.max_steps=1", "--trainer.log_every_n_steps=1")
    assert len(seen) == 2
    [entry] = events(output, "train")
    assert entry["train_loss"] == pytest.approx(sum(loss for loss, _ in seen) / sum(n for _, n in seen), rel=1e-6)


def test_everything_trainable_moves_and_nothing_else(fit: Fit, tiny: Path, trained_task: list[Distillation]) -> None:
    starts: dict[str, Tensor] = {}
    place = Distillation.on_train_start

    def remember(self: Distillation) -> None:
        starts.update({name: p.detach().clone() for name, p in self.named_parameters() if p.requires_grad})
        place(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distillation, "on_train_start", remember)
        fit(*batch(2), "--trainer.max_epochs=1")
    [task] = trained_task
    parameters = dict(task.named_parameters())
    assert starts
    assert all(".lora_A." in name or ".lora_B." in name for name in starts)
    still = [name for name, start in starts.items() if torch.equal(parameters[name], start)]
    assert still == []

    on_disk = load_file(tiny / "model.safetensors")
    plain = LlavaNextForConditionalGeneration.from_pretrained(tiny).state_dict()
    compared = 0
    for name, parameter in parameters.items():
        if name in starts:
            continue
        plain_name = name.removeprefix("model.base_model.model.").replace(".base_layer", "")
        assert torch.equal(parameter.detach(), plain[plain_name]), name
        compared += 1
    assert compared == len(list(LlavaNextForConditionalGeneration.from_pretrained(tiny).parameters()))
    assert compared == len(on_disk)


@pytest.mark.slow
def test_a_run_with_every_speedup_equals_one_without_any(fit: Fit) -> None:
    common = [*batch(3, 2), NO_DROPOUT, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
    fast, plain = fit(*common), fit(*common, *UNHURRIED)
    for event, name in (("train", "train_loss"), ("validation", "val_loss"), ("validation", "visual_gain")):
        one, other = ([entry[name] for entry in events(output, event)] for output in (fast, plain))
        assert one == pytest.approx(other, abs=1e-5), name
    assert_same(last_weights(fast), last_weights(plain), atol=2e-5)


def test_bfloat16_weights_carry_float32_adapters(fit: Fit, trained_task: list[Distillation]) -> None:
    output = fit(*batch(4), "--model.init_args.base.dtype=bfloat16", NO_DROPOUT)
    plain = fit(*batch(4), NO_DROPOUT)
    assert trained_task[0].llava.lm_head.weight.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in weights(output).values()} == {torch.float32}
    one, other = ([entry["val_loss"] for entry in events(o, "validation")] for o in (output, plain))
    assert one == pytest.approx(other, rel=0.01)


def test_nf4_weights_stay_as_they_are_and_the_adapter_learns(fit: Fit, trained_task: list[Distillation]) -> None:
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.nn import Linear4bit

    output = fit(*batch(4), "--model.init_args.base.quantization=nf4", "--trainer.max_epochs=2")
    [task] = trained_task
    quantized = [name for name, module in task.llava.named_modules() if isinstance(module, Linear4bit)]
    assert len(quantized) == 2 * 7  # every Linear of the language model's two layers
    assert all(name.startswith("model.language_model.layers.") for name in quantized)
    one, two = (entry["val_loss"] for entry in events(output, "validation"))
    assert two < one


@torch.no_grad()
def test_the_adapter_gives_the_same_logits_in_plain_peft(
    fit: Fit, tiny: Path, described: Described, trained_task: list[Distillation]
) -> None:
    output = fit(*batch(4), "--trainer.max_epochs=1")
    plain = PeftModel.from_pretrained(LlavaNextForConditionalGeneration.from_pretrained(tiny), output / ADAPTER).eval()
    processor = AutoProcessor.from_pretrained(output / ADAPTER)
    image = Image.open(next((described.folder / "valid_images").iterdir()))
    pixels = processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert len(pixels) == 5
    ids = torch.arange(5, 30).unsqueeze(0)
    base = LlavaNextForConditionalGeneration.from_pretrained(tiny).eval()
    logits = []
    for llava in (trained_task[0].llava.eval(), plain.base_model.model, base):
        cls = llava.model.vision_tower(pixels).last_hidden_state[:, 0]
        visual = llava.model.multi_modal_projector(cls)
        embeddings = torch.cat([llava.get_input_embeddings()(ids), visual.unsqueeze(0)], dim=1)
        logits.append(llava.lm_head(llava.model.language_model(inputs_embeds=embeddings).last_hidden_state))
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-5)
    assert (logits[1] - logits[2]).abs().max() > 1e-3  # the adapter does something


@torch.no_grad()
def test_the_controls_show_the_partners_image_and_a_blank_one(
    fit: Fit, described: Described, trained_task: list[Distillation]
) -> None:
    output = fit(*batch(4), "--trainer.max_epochs=1")
    [entry] = events(output, "validation")
    task = trained_task[0]
    task.eval()
    data = task.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it
    table = data.tables["val"]
    partners = partners_of(table.column("item"), seed=42)
    assert sorted(partners) == list(range(described.valid))
    processor = data.processor

    def visual(row: int | None) -> Tensor:
        if row is None:
            blank = Image.new("RGB", (336, 336), tuple(round(255 * mean) for mean in CLIP_MEAN))  # zero, normalised
            pixels = processor.image_processor(images=blank, return_tensors="pt")["pixel_values"][0]
            pixels = pixels[:1].expand(5, -1, -1, -1)
        else:
            image = Image.open(described.folder / "valid_images" / table.row(row)["image"]).convert("RGB")
            pixels = processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        class_tokens = task.llava.model.vision_tower(pixels).last_hidden_state[:, 0]
        visual_tokens: Tensor = task.llava.model.multi_modal_projector(class_tokens)
        return visual_tokens

    def mean_loss(images: list[int | None]) -> float:
        loss, tokens = 0.0, 0
        for row, shown in enumerate(images):
            sample = table.row(row)
            ids, start = torch.tensor(sample["input_ids"]).long(), sample["target_start"]
            embeddings = task.llava.get_input_embeddings()(ids)
            embeddings[torch.isin(ids, torch.tensor(task.placeholder_ids))] = visual(shown)
            hidden = task.llava.model.language_model(inputs_embeds=embeddings.unsqueeze(0)).last_hidden_state[0]
            chances = task.llava.lm_head(hidden).double().log_softmax(-1)
            loss -= float(sum(chances[place - 1, ids[place]] for place in range(start, len(ids))))
            tokens += len(ids) - start
        return loss / tokens

    own = mean_loss(list(range(described.valid)))
    shuffled, blank = mean_loss(list(partners)), mean_loss([None] * described.valid)
    assert entry["val_loss"] == pytest.approx(own, abs=1e-5)
    assert entry["val_loss_shuffled"] == pytest.approx(shuffled, abs=1e-5)
    assert entry["val_loss_blank"] == pytest.approx(blank, abs=1e-5)
    assert entry["visual_gain"] == pytest.approx(shuffled - own, abs=2e-5)
    assert entry["visual_gain_blank"] == pytest.approx(blank - own, abs=2e-5)


def test_the_saved_adapter_validates_as_in_training_and_describes_every_item(
    run: Run, fit: Fit, described: Described, trained_task: list[Distillation]
) -> None:
    trained = fit(*batch(4), "--trainer.max_epochs=1")
    adapter = trained / ADAPTER
    run("validate", f"--model.init_args.adapter={adapter}")
    [entry] = events(trained, "validation")
    for name in ("val_loss", "visual_gain", "visual_gain_blank"):
        assert float(trained_task[-1].trainer.callback_metrics[name]) == pytest.approx(entry[name], abs=1e-5)

    found = []
    for size in (1, 3):
        output = run("predict", *batch(size), f"--model.init_args.adapter={adapter}")
        lines = (output / "predictions.jsonl").read_text().splitlines()
        found.append({entry["image"]: entry for entry in map(json.loads, lines)})
        assert len(lines) == len(found[-1]) == described.valid
    assert found[0] == found[1]
    assert set(next(iter(found[0].values()))) == {"item", "title", "image", "description", "generated"}
    assert len({entry["generated"] for entry in found[0].values()}) > 1  # different images, different words
