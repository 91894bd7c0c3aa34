"""The fused LoRA Linear beside PEFT's own: outputs, gradients, dropout, and what is left to PEFT."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from lavic.model.adapters import fused_lora
from lavic.model.adapters.fused_lora import FusedLoraLinear, MaskDropout, fuse_lora

INPUTS, OUTPUTS = 24, 40


class OneLinear(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, OUTPUTS, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def adapted(dropout: float = 0.0, bias: bool = True, **options: Any) -> PeftModel:
    """PEFT's module around one Linear, both factors of its adapter random."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules=["linear"], **options)
    model = get_peft_model(OneLinear(bias), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    return model.train()


def pair(**options: Any) -> tuple[PeftModel, PeftModel]:
    """The same module, computed by PEFT and fused, both in float64."""
    plain = adapted(**options).double()
    fused = copy.deepcopy(plain)
    fuse_lora(plain, enabled=False)
    fuse_lora(fused)
    return plain, fused


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, INPUTS, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()


def run(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output and the gradients of a fixed function of it, by name."""
    torch.manual_seed(5)  # of dropout
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    found = {"y": y.detach()} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return found if x.grad is None else {**found, "x": x.grad}


def uses(model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a forward pass goes through the fused function."""
    calls: list[int] = []
    apply = fused_lora._LinearWithLora.apply

    def counted(*args: Any) -> Any:
        calls.append(1)
        return apply(*args)

    monkeypatch.setattr(fused_lora._LinearWithLora, "apply", counted)
    model(x)
    return bool(calls)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (0,)])
def test_outputs_and_gradients_equal_pefts(shape: tuple[int, ...], dropout: float, bias: bool) -> None:
    plain, fused = pair(dropout=dropout, bias=bias)
    expected, found = run(plain, inputs(*shape)), run(fused, inputs(*shape))
    assert found.keys() == expected.keys()
    assert {"y", "x"} < found.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12, msg=name)


def test_the_fused_function_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = pair(dropout=0.3)
    assert uses(fused, inputs(3), monkeypatch)
    assert not uses(plain, inputs(3), monkeypatch)
    fuse_lora(fused, enabled=False)
    assert not uses(fused, inputs(3), monkeypatch)


def test_a_first_layer_needs_no_gradient_of_its_input() -> None:
    plain, fused = pair(dropout=0.3)
    expected, found = (run(model, inputs(6).detach()) for model in (plain, fused))
    assert "x" not in found
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12, msg=name)


def test_bfloat16_weights_under_autocast_carry_float32_adapters() -> None:
    plain = adapted()
    plain.base_model.model.linear.base_layer.to(torch.bfloat16)
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    exact = copy.deepcopy(plain).double()
    expected = run(exact, inputs(50, dtype=torch.float64))
    errors = {}
    for name, model in (("plain", plain), ("fused", fused)):
        x = inputs(50, dtype=torch.float64).detach().float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            found = run(model, x)
        assert found["y"].dtype == torch.bfloat16
        assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
        errors[name] = {k: float((v.double() - expected[k]).norm() / expected[k].norm()) for k, v in found.items()}
    for name, error in errors["fused"].items():
        assert error < max(1.3 * errors["plain"][name], 2e-3), name


@pytest.mark.parametrize("case", ["merged", "disabled", "dora", "compiling", "trainable base", "another dropout"])
def test_whatever_is_not_one_plain_adapter_is_left_to_peft(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = pair(use_dora=case == "dora")
    for model in (plain, fused):
        layer = model.base_model.model.linear
        if case == "merged":
            layer.merge()
        elif case == "disabled":
            model.base_model.disable_adapter_layers()
        elif case == "trainable base":
            layer.base_layer.weight.requires_grad_()
        elif case == "another dropout":
            layer.lora_dropout["default"] = nn.ReLU()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: case == "compiling")
    assert not uses(fused, inputs(3), monkeypatch)
    torch.testing.assert_close(fused(inputs(3)), plain(inputs(3)), rtol=1e-12, atol=1e-12)


def test_evaluation_drops_nothing() -> None:
    plain, fused = pair(dropout=0.5)
    torch.testing.assert_close(fused.eval()(inputs(9)), plain.eval()(inputs(9)), rtol=1e-12, atol=1e-12)


def test_names_and_classes_come_back() -> None:
    model = adapted(dropout=0.1)
    before = {name: type(module) for name, module in model.named_modules()}
    names = list(model.state_dict())
    fuse_lora(model)
    assert any(isinstance(module, FusedLoraLinear) for module in model.modules())
    assert list(model.state_dict()) == names
    fuse_lora(model, enabled=False)
    after = {name: type(module) for name, module in model.named_modules()}
    assert {n for n in before if before[n] is not after[n]} == {"base_model.model.linear.lora_dropout.default"}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_keep_the_right_share_and_neighbours_are_independent(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    keep = MaskDropout(p).keep(torch.empty(1001, 999, dtype=dtype))
    assert keep.dtype == dtype
    assert set(keep.unique().tolist()) == {0.0, 1.0}  # type: ignore[no-untyped-call]  # torch gives it no types
    kept = keep.double()
    deviation = (p * (1 - p) / kept.numel()) ** 0.5
    assert abs(kept.mean() - (1 - p)) < 5 * deviation
    flat = kept.flatten() - kept.mean()
    for distance in (1, 2, 3, 4, 999):  # lanes of one word, the next word, the next row
        correlation = (flat[:-distance] * flat[distance:]).mean() / (p * (1 - p))
        assert abs(correlation) < 5 / kept.numel() ** 0.5, distance


def test_masks_follow_the_seed_and_the_sum_is_kept() -> None:
    dropout = MaskDropout(0.25)
    x = torch.ones(400, 500)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(second, first)
    assert first.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(first.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropout.eval()(x), x)
