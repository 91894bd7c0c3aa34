"""The cross-entropy in chunks against a plain one."""

import pytest
import torch
from torch import nn

from lavic.model import loss as losses
from lavic.model.loss import chunked_cross_entropy


@pytest.mark.parametrize("tokens", [7, 300, 513])
def test_chunked_cross_entropy(tokens: int) -> None:
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=False).double()
    hidden = torch.randn(tokens, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (tokens,))
    targets[::5] = -100
    rows = (targets != -100).nonzero().flatten()
    plain = -head(hidden).log_softmax(-1)[rows, targets[rows]].sum()
    ours = chunked_cross_entropy(head, hidden, targets)
    torch.testing.assert_close(ours, plain)
    for wanted in (hidden, head.weight):
        (expected,) = torch.autograd.grad(plain, wanted, retain_graph=True)
        (found,) = torch.autograd.grad(ours, wanted, retain_graph=True)
        torch.testing.assert_close(found, expected)


def test_no_chunk_of_logits_is_larger_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    head = nn.Linear(8, 50)
    head.register_forward_hook(lambda _module, _inputs, logits: sizes.append(len(logits)))
    monkeypatch.setattr(losses, "LOSS_CHUNK", 4)
    chunked_cross_entropy(head, torch.randn(10, 8), torch.zeros(10, dtype=torch.int64))
    assert sizes == [4, 4, 2]


def test_bf16_logits_are_compared_in_float32() -> None:
    head = nn.Linear(8, 50).bfloat16()
    loss = chunked_cross_entropy(head, torch.randn(3, 8).bfloat16(), torch.zeros(3, dtype=torch.int64))
    assert loss.dtype == torch.float32
