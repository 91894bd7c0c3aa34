"""Counts the bytes that a computation holds, on tensors that have shapes but no memory."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch import empty as empty_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's modes have no types
    """While active, `now` is what the tensors made since hold, and `peak` the most they held.

    Args:
        known: tensors that are not counted, nor views of them.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's modes have no types
        self.now = self.peak = 0
        self.seen: Any = WeakIdKeyDictionary()
        for tensor in known:
            self.seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self.seen:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: UntypedStorage) -> None:
        size = storage.nbytes()
        self.seen[storage] = True
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size


def onto_fake_device(model: nn.Module) -> None:
    """Replaces a meta model's tensors by ones on the CPU; under FakeTensorMode they take no memory."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = empty_tensor(parameter.shape, dtype=parameter.dtype, device="cpu")
                module._parameters[name] = nn.Parameter(fake, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = empty_tensor(buffer.shape, dtype=buffer.dtype, device="cpu")
