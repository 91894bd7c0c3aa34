"""The last vision layer for the class token only, against the whole layer."""

import copy

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lavic.model.class_token import ClassTokenEncoderLayer, keep_class_token_only, last_layer
from lavic.model.speedups import PLAIN, Speedups, speed_up
from tests.model.toy import images, lora_parameters, toy_llava, visual_tokens


class DrawnDropout(nn.Module):
    """Dropout with masks drawn beforehand for every token: a layer given fewer tokens drops alike."""

    def __init__(self, rate: float, width: int, seed: int) -> None:
        super().__init__()
        kept = torch.rand(15, 5, width, generator=torch.Generator().manual_seed(seed)) >= rate
        self.scale = kept.double() / (1 - rate)

    def forward(self, states: Tensor) -> Tensor:
        return states * self.scale[:, : states.shape[1]] if states.ndim == 3 else states


def draw_dropout(vision_tower: nn.Module, rate: float) -> None:
    for seed, module in enumerate(vision_tower.modules()):
        if isinstance(module, LoraLayer):
            module.lora_dropout["default"] = DrawnDropout(rate, module.in_features, seed)


def run(llava: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    llava.zero_grad()
    visual = visual_tokens(llava, images(3))
    (visual * torch.linspace(-1, 1, visual.numel(), dtype=visual.dtype).view_as(visual)).sum().backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    return visual, {name: p.grad for name, p in lora_parameters(llava).items() if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_same_class_token_and_gradients_given_the_same_dropout_masks(attention: str, rate: float) -> None:
    llava = toy_llava(attention=attention).double()
    draw_dropout(llava.model.vision_tower, rate)
    ours = copy.deepcopy(llava)
    speed_up(ours, Speedups())
    expected, expected_gradients = run(llava)
    found, found_gradients = run(ours)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found_gradients.keys() == expected_gradients.keys() == lora_parameters(llava).keys()
    for name, gradient in found_gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-10, atol=1e-12, msg=name)


def test_dropout_is_drawn_for_the_class_token_too() -> None:
    """The masks of the last layer alone decide here: without dropout there, both runs would agree."""
    llava = toy_llava(dropout=0.5).double()
    keep_class_token_only(llava.model.vision_tower)
    for layer in llava.model.vision_tower.encoder.layers[:-1]:
        layer.eval()
    llava.model.multi_modal_projector.eval()
    first, second = (visual_tokens(llava, images(1)) for _ in range(2))
    assert not torch.allclose(first, second)
    llava.eval()
    first, second = (visual_tokens(llava, images(1)) for _ in range(2))
    assert torch.equal(first, second)


def test_the_last_layer_computes_one_token_and_the_switch_restores_it() -> None:
    llava = toy_llava().double()
    tower = llava.model.vision_tower
    names = list(tower.state_dict())
    whole = tower(images(1)).last_hidden_state
    widths: list[int] = []
    last_layer(tower).mlp.register_forward_pre_hook(lambda _mlp, inputs: widths.append(inputs[0].shape[1]))

    speed_up(llava, Speedups())
    assert isinstance(last_layer(tower), ClassTokenEncoderLayer)
    outputs = tower(images(1), output_hidden_states=True)
    assert outputs.last_hidden_state.shape == (5, 1, 16)
    torch.testing.assert_close(outputs.last_hidden_state, whole[:, :1])
    assert outputs.hidden_states[-2].shape == (5, 5, 16)
    assert list(tower.state_dict()) == names

    speed_up(llava, PLAIN)
    assert torch.equal(tower(images(1)).last_hidden_state, whole)
    assert widths == [1, 5]


def test_a_tower_without_class_token_is_named() -> None:
    with pytest.raises(ValueError, match="Linear"):
        keep_class_token_only(nn.Linear(2, 2))


@pytest.mark.slow
def test_a_compiled_tower_gives_the_same() -> None:
    llava = toy_llava().float()
    compiled = copy.deepcopy(llava)
    speed_up(compiled, Speedups(compile_vision=True))
    with torch.no_grad():
        pixels = images(1, torch.float32)
        torch.testing.assert_close(visual_tokens(compiled, pixels), visual_tokens(llava, pixels), rtol=1e-4, atol=1e-5)
    assert list(compiled.state_dict()) == list(llava.state_dict())
