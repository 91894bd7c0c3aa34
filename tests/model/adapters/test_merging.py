"""`export`: adapters merged into a plain checkpoint, compared with PEFT's own answer on the base."""

import json
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaNextForConditionalGeneration

from lavic.__main__ import main
from lavic.model.adapters.directory import save_adapter
from lavic.model.loading import BaseModel, load_llava
from lavic.model.parts import Lora, TrainableParts, place_adapters, trained_parameters
from lavic.model.processor import load_processor

PARTS = {
    "distillation": TrainableParts(),
    "recommendation": TrainableParts("frozen", "frozen", "lora"),
    "vqa": TrainableParts("frozen", "frozen", "lora", Lora(r=4, alpha=8)),
    "instruction": TrainableParts("frozen", "full", "lora", Lora(r=4, alpha=16)),
    "full": TrainableParts("frozen", "full", "full"),
}


def adapter(tiny: Path, folder: Path, task: str, quantization: str = "none") -> Path:
    base = BaseModel(str(tiny), quantization=quantization)  # type: ignore[arg-type]
    model = place_adapters(load_llava(base, torch.device("cpu")), PARTS[task], str(tiny), entry="patch")
    for number, (_, parameter, _) in enumerate(trained_parameters(model)):
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    save_adapter(model, load_processor(str(tiny)), folder, "card", task=task)
    return folder


def logits(model: torch.nn.Module, llava: LlavaNextForConditionalGeneration) -> Tensor:
    """Of an image by LLaVA's own patch tokens and by class tokens, and of a text."""
    pixels = torch.randn(5, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        patches = llava.model.get_image_features(pixels[None], torch.tensor([[500, 500]])).pooler_output[0]
        cls = llava.model.multi_modal_projector(llava.model.vision_tower(pixels).last_hidden_state[:, 0])
        text = llava.get_input_embeddings()(torch.arange(4, 20))
        return llava(inputs_embeds=torch.cat([patches, cls, text])[None]).logits  # type: ignore[no-any-return]


def export(monkeypatch: pytest.MonkeyPatch, *argv: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lavic", "export", *map(str, argv)])
    return main()


@pytest.mark.parametrize("task", ["distillation", "recommendation", "vqa", "instruction", "full"])
def test_the_merged_checkpoint_gives_the_adapter_s_logits_without_peft(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    folder = adapter(tiny, tmp_path / "a", task)
    assert export(monkeypatch, "--adapter", folder, "--out", tmp_path / "m", "--dtype", "float32", "--json") == 0
    assert json.loads(capsys.readouterr().out)["largest_logit_difference"] < 1e-4
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "m")
    base = LlavaNextForConditionalGeneration.from_pretrained(tiny)
    unadapted = logits(base, base)
    if (folder / "full_parts.safetensors").is_file():
        base.load_state_dict(load_file(folder / "full_parts.safetensors"), strict=False)
    wanted = logits(base if task == "full" else PeftModel.from_pretrained(base, str(folder)), base)
    found = logits(merged, merged)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert (wanted - unadapted).abs().max() > 1e-2
    assert not any("lora" in name for name in merged.state_dict())
    AutoProcessor.from_pretrained(tmp_path / "m")
    assert "no PEFT is needed" in (tmp_path / "m" / "README.md").read_text()
    assert not list((tmp_path / "m").glob("adapter*"))


def test_stage_2_is_merged_on_top_of_stage_1(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = adapter(tiny, tmp_path / "1", "distillation")
    second = adapter(tiny, tmp_path / "2", "recommendation")
    given = ("--distilled", first, "--adapter", second, "--out", tmp_path / "m", "--dtype", "float32")
    assert export(monkeypatch, *given) == 0
    base = LlavaNextForConditionalGeneration.from_pretrained(tiny)
    model = PeftModel.from_pretrained(base, str(first), adapter_name="distilled")
    model.load_adapter(str(second), adapter_name="recommendation")
    model.base_model.set_adapter(["distilled", "recommendation"])
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "m")
    torch.testing.assert_close(logits(merged, merged), logits(model, base), atol=1e-4, rtol=0)


def test_an_nf4_run_s_adapter_is_merged_into_whole_weights_of_16_bits(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = adapter(tiny, tmp_path / "a", "recommendation", quantization="nf4")
    assert export(monkeypatch, "--adapter", folder, "--out", tmp_path / "m") == 0
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "m", dtype="auto")
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    base = LlavaNextForConditionalGeneration.from_pretrained(tiny)
    wanted = PeftModel.from_pretrained(base, str(folder)).merge_and_unload().bfloat16().state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in merged.state_dict().items())


def test_mistakes_are_one_sentence_and_leave_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = adapter(tiny, tmp_path / "a", "recommendation")
    cases = {
        "exists already": ["--adapter", folder, "--out", tmp_path],
        "holds no adapter": ["--adapter", tiny, "--out", tmp_path / "m"],
        "does not exist": ["--adapter", folder, "--out", tmp_path / "m", "--base", tmp_path / "none"],
        "out": ["--adapter", folder],
    }
    for words, argv in cases.items():
        assert export(monkeypatch, *argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert words in next(line for line in err.splitlines() if line.startswith("error: "))
        assert [p.name for p in tmp_path.iterdir()] == ["a"]
