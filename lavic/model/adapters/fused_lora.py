"""A Linear with LoRA as one autograd function: the same products as PEFT's, with half the passes over memory.

PEFT computes `base(x) + B(A(dropout(x))) * alpha/r` as seven operations, each of which reads or writes a tensor as
large as the layer's input or output; at rank 8 those passes cost more than the adapter's own products. Here the
product with B scales the update and adds it to the base's output, and the input's two gradients are added in place.

Shapes: N rows (views x tokens), I inputs, O outputs, r the adapter's rank.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from lavic.model.autocast import autocast_dtype

LANES = 4  # 16-bit numbers in one of the generator's 64 bits


class MaskDropout(nn.Dropout):
    """Dropout that hands out its mask, and draws it a quarter as dearly as PyTorch's where that is on a CPU."""

    def keep(self, inputs: Tensor) -> Tensor:
        """What is kept, 1 or 0, of the shape of `inputs`: in its dtype on a CPU, as bool elsewhere.

        On a CPU each element takes 16 bits of the default generator, so `p` is met to 1/131,072.
        """
        if inputs.device.type != "cpu":
            return torch.empty_like(inputs, dtype=torch.bool).bernoulli_(1 - self.p)
        words = torch.empty(-(-inputs.numel() // LANES), dtype=torch.int64).random_(-(2**63), None)
        lanes = words.view(torch.int16)[: inputs.numel()].view(inputs.shape)
        return torch.ge(lanes, round(self.p * 2**16) - 2**15, out=torch.empty_like(lanes, dtype=inputs.dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        """Zeroes a share `p` of `inputs` and scales the rest by 1 / (1 - p), in training mode."""
        if not self.training:
            return inputs
        return inputs * self.keep(inputs) * (1 / (1 - self.p))


class _LinearWithLora(torch.autograd.Function):
    """`linear(x, weight, bias) + scale * (x * keep) @ A.T @ B.T`, with `weight` and `bias` frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (N, I)
        weight: Tensor,  # (O, I)
        bias: Tensor | None,  # (O,)
        a: Tensor,  # (r, I)
        b: Tensor,  # (O, r)
        keep: Tensor | None,  # (N, I), 1 where dropout leaves the input in; None keeps all
        scale: float,
    ) -> Tensor:
        kept = x if keep is None else x * keep
        inner = kept @ a.t()  # (N, r)
        ctx.save_for_backward(kept, keep, inner, weight, a, b)
        ctx.scale = scale
        # Nothing in place: selective checkpointing keeps what the large products gave.
        return torch.addmm(linear(x, weight, bias), inner, b.t(), alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, keep, inner, weight, a, b = ctx.saved_tensors
        gradient_inner = (gradient @ b).mul_(ctx.scale)  # (N, r)
        gradient_x = None
        if ctx.needs_input_grad[0]:
            gradient_x = gradient @ weight
            if keep is None:
                gradient_x.addmm_(gradient_inner, a)
            else:
                gradient_x.addcmul_(gradient_inner @ a, keep.to(gradient.dtype))
        gradient_b = (gradient.t() @ inner).mul_(ctx.scale)
        return gradient_x, None, None, gradient_inner.t() @ kept, gradient_b, None, None


class FusedLoraLinear(LoraLinear):  # type: ignore[misc]
    """PEFT's LoRA Linear with a cheaper forward pass; everything else, merging and saving included, is PEFT's.

    It owns no weight of its own: `fuse_lora` turns an existing layer into one.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., I) -> (..., O). PEFT's own forward takes whatever is not one plain adapter on a frozen Linear."""
        name = None if args or kwargs or torch.compiler.is_compiling() else self._only_plain_adapter()
        result: Tensor = super().forward(x, *args, **kwargs) if name is None else self._fused(x, name)
        return result

    def _only_plain_adapter(self) -> str | None:
        """The name of the one adapter that `_fused` computes as PEFT would; None where there is no such."""
        active = [name for name in self.active_adapters if name in self.lora_A]
        if self.merged or self.disable_adapters or len(active) != 1 or active[0] in self.lora_variant:
            return None
        frozen = type(self.base_layer) is nn.Linear and not self.base_layer.weight.requires_grad
        known_dropout = isinstance(self.lora_dropout[active[0]], MaskDropout | nn.Identity)
        return str(active[0]) if frozen and known_dropout else None

    def _fused(self, x: Tensor, name: str) -> Tensor:
        dropout, base = self.lora_dropout[name], self.base_layer
        dtype = autocast_dtype(x.device) or base.weight.dtype
        rows, weight, a, b = (
            t.to(dtype) for t in (x.flatten(0, -2), base.weight, self.lora_A[name].weight, self.lora_B[name].weight)
        )
        bias = base.bias if base.bias is None else base.bias.to(dtype)
        drops = isinstance(dropout, MaskDropout) and dropout.training
        keep = dropout.keep(rows) if drops else None
        scale = self.scaling[name] / (1 - dropout.p if drops else 1)
        out: Tensor = _LinearWithLora.apply(rows, weight, bias, a, b, keep, scale)
        return out.view(*x.shape[:-1], out.shape[-1])  # -1 would mean nothing where there is no row


def fuse_lora(model: nn.Module, enabled: bool = True) -> None:
    """Turns PEFT's LoRA Linears in `model` into fused ones, or back; names of parameters do not change.

    Their dropout becomes a `MaskDropout` either way, so that both draw the same masks from the same seed.
    """
    for layer in [module for module in model.modules() if type(module) in (LoraLinear, FusedLoraLinear)]:
        module: Any = layer
        module.__class__ = FusedLoraLinear if enabled else LoraLinear
        for name, dropout in module.lora_dropout.items():
            if type(dropout) is nn.Dropout:
                module.lora_dropout[name] = MaskDropout(dropout.p).train(dropout.training)
