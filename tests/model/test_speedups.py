"""Every speedup, by the dataclass that lists them: same loss, same gradients, and other work."""

from dataclasses import fields, replace
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lavic.model.prefix_reuse import FrozenPrefix, segment_batch, shared_prefix_loss
from lavic.model.speedups import PLAIN, Speedups, speed_up
from tests.model.toy import (
    PLACEHOLDERS,
    PREFIX,
    images,
    lora_parameters,
    plain_loss,
    ragged_batch,
    toy_llava,
    visual_tokens,
)

SWITCHES = [field.name for field in fields(Speedups)]
ALL = Speedups(**dict.fromkeys(SWITCHES, True))
EAGER = replace(ALL, compile_vision=False)


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes have no types
    """The operations that torch carries out, with the shapes they are given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's modes have no types
        self.done: list[tuple[str, tuple[tuple[int, ...], ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.done.append((str(func), tuple(tuple(a.shape) for a in args if isinstance(a, Tensor))))
        return func(*args, **(kwargs or {}))


def run(speedups: Speedups) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of a ragged batch, from pixels on, with these switches on a model made anew."""
    llava = toy_llava().double()
    speed_up(llava, speedups)
    batch = ragged_batch()
    loss = shared_prefix_loss(
        llava,
        **batch,
        visual_tokens=visual_tokens(llava, images(3)),
        placeholder_ids=PLACEHOLDERS,
        prefix=FrozenPrefix(PREFIX),
        segments=segment_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=PREFIX, speedups=speedups),
    )
    return loss, gradients(llava, loss)


def gradients(llava: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in lora_parameters(llava).items() if p.grad is not None}


@pytest.fixture(scope="module")
def plain() -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of the whole forward pass, without any of LaViC's code."""
    llava = toy_llava().double()
    loss = plain_loss(llava, ragged_batch(), visual_tokens(llava, images(3)))
    return loss, gradients(llava, loss)


def assert_equal(speedups: Speedups, plain: tuple[Tensor, dict[str, Tensor]]) -> None:
    loss, found = run(speedups)
    torch.testing.assert_close(loss, plain[0], rtol=3e-7, atol=3e-7)
    assert found.keys() == plain[1].keys()
    assert len(found) == 2 * (3 * 6 + 2)
    for name, gradient in plain[1].items():
        largest = float(gradient.abs().max())
        assert largest > 1e-7, f"{name} has no gradient to compare"
        torch.testing.assert_close(found[name], gradient, rtol=3e-7, atol=3e-7 * largest, msg=name)


def test_plain_is_every_switch_off() -> None:
    assert Speedups(**dict.fromkeys(SWITCHES, False)) == PLAIN


@pytest.mark.parametrize("speedups", [PLAIN, Speedups(), EAGER], ids=["none", "the default", "all without compiling"])
def test_none_and_all_equal_the_plain_pass(speedups: Speedups, plain: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert_equal(speedups, plain)


@pytest.mark.parametrize("name", SWITCHES)
def test_each_alone_equals_the_plain_pass(
    name: str, plain: tuple[Tensor, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # traced and differentiated as always, without the minutes that making machine code of it takes
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    assert_equal(replace(PLAIN, **{name: True}), plain)


@pytest.mark.parametrize("name", [name for name in SWITCHES if name != "compile_vision"])
def test_all_but_one_equal_the_plain_pass(name: str, plain: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert_equal(replace(EAGER, **{name: False}), plain)


@pytest.mark.parametrize("name", [name for name in SWITCHES if name != "compile_vision"])
def test_each_changes_what_is_computed(name: str) -> None:
    """Otherwise the tests above compare the plain pass with itself."""
    with Work() as plain:
        run(PLAIN)
    with Work() as fast:
        run(replace(PLAIN, **{name: True}))
    assert fast.done != plain.done


def test_compiling_is_asked_of_the_vision_tower_alone() -> None:
    llava = toy_llava()
    speed_up(llava, replace(PLAIN, compile_vision=True))
    assert [name for name, m in llava.named_modules() if m._compiled_call_impl] == ["model.vision_tower"]
