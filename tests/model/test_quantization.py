"""NF4 on a CPU that has AVX-512 BF16: the processor's own flag where it is set, and set by hand where it is not."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration

from lavic.demo.toy_llava import ToySize, tiny_checkpoint
from lavic.model.loading import BaseModel, load_llava
from lavic.model.parts import TrainableParts, place_adapters

bitsandbytes = pytest.importorskip("bitsandbytes")

HAS_AVX512_BF16 = "import ctypes; found = ctypes.CDLL.__getattr__\nctypes.CDLL.__getattr__ = lambda library, name: "
HAS_AVX512_BF16 += "(lambda: 1) if name == 'has_avx512bf16_cpu' else found(library, name)\n"


@pytest.fixture(params=["as it is", "forced"])
def processor_flag(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This processor's answer to bitsandbytes, and the answer of one with AVX-512 BF16."""
    if request.param == "forced":
        monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    elif not bitsandbytes.functional.has_avx512bf16():
        pytest.skip("this processor has no AVX-512 BF16")


def lora_gradients(model: torch.nn.Module, ids: Tensor) -> list[Tensor]:
    """The adapters' gradients of a text's loss; with B random, of A too."""
    model.zero_grad()
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.usefixtures("processor_flag")
@pytest.mark.parametrize("width", [48, 64])  # 32 does not divide 48; at 64 nothing would crash, and nothing learn
def test_gradients_after_a_validation_equal_those_before(tmp_path: Path, width: int) -> None:
    tiny_checkpoint(tmp_path, size=ToySize(56, 32, 2, width, 2))
    llava = load_llava(BaseModel(str(tmp_path), quantization="nf4"), torch.device("cpu"))
    parts = TrainableParts(vision="frozen", projector="frozen", language="lora")
    parts.lora.dropout = 0.0
    model = place_adapters(llava, parts, "base")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.arange(5, 29).view(2, 12)
    before = lora_gradients(model, ids)
    assert len(before) == 2 * 14
    assert all(g.abs().sum() > 0 for g in before)
    model.eval()
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    assert torch.isfinite(loss)
    after = lora_gradients(model, ids)
    assert len(after) == len(before)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.usefixtures("processor_flag")
def test_evaluation_gives_the_dequantised_weights_loss(tiny: Path) -> None:
    """Also generation, which never needs a gradient, computes with the very weights that training sees."""
    llava: LlavaNextForConditionalGeneration = load_llava(BaseModel(str(tiny), quantization="nf4"), torch.device("cpu"))
    layer = llava.model.language_model.layers[0].mlp.down_proj
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0))
    weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(layer(x), x @ weight.T)


def test_bitsandbytes_says_nothing_at_import_on_such_a_processor() -> None:
    """In a process of its own, whose native library answers that it has AVX-512 BF16."""
    code = HAS_AVX512_BF16 + "import logging, sys; logging.basicConfig(stream=sys.stdout)\n{}"
    shown = [
        subprocess.run([sys.executable, "-c", code.format(line)], capture_output=True, text=True, check=True)
        for line in ("import bitsandbytes", "import lavic.model.parts")
    ]
    assert "gemm_4bit_forward" in shown[0].stdout + shown[0].stderr, "the forced flag has no effect"
    assert "gemm_4bit_forward" not in shown[1].stdout + shown[1].stderr
