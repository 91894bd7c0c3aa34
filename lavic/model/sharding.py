"""FSDP2: weights spread over the processes, and gathered while a layer computes."""

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lavic.errors import UserError
from lavic.model.parts import HELD


def repeated_layers(part: nn.Module) -> list[nn.Module]:
    """The layers that a vision tower or a language model repeats: the entries of its outermost lists of modules."""
    layers: list[nn.Module] = []
    for child in part.children():
        layers += list(child) if isinstance(child, nn.ModuleList) else repeated_layers(child)
    return layers


def shard_layers(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shards the vision tower's and the language model's layers and the projector, each on its own.

    What lies between them (embeddings, norms, output head) stays whole on every process; tasks call the parts one by
    one, so there is no root whose forward would gather it.

    Args:
        model: LLaVA itself, its adapters in place; which families it is made of makes no difference.
        mesh: of the processes.

    Raises:
        UserError: a part has no layers to shard; or something is trained that is not sharded, so that its gradients
            would differ between processes.
    """
    llava: Any = model
    for part in (llava.model.vision_tower, llava.model.language_model):
        layers = repeated_layers(part)
        if not layers:
            raise UserError(
                f"FSDP2 shards repeated layers, and {type(part).__name__} has none; use --trainer.strategy ddp."
            )
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(llava.model.multi_modal_projector, mesh=mesh)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            raise UserError(
                f"FSDP2 shards layers and the projector, and {name} is trained outside of them; {_way_out(name)}"
                " use --trainer.strategy ddp."
            )


def _way_out(name: str) -> str:
    """What leaves the parameter of a name untrained: of a projector in full, LLaVA-1.6's image_newline is a part."""
    part = next((part for part, starts in HELD.items() if name.startswith(starts)), None)
    also = ", or trainable.embeddings to false" if part == "language" else ""
    return f"set trainable.{part} to lora or frozen{also}, or" if part else ""


def is_sharded(model: nn.Module) -> bool:
    """Whether processes wait for each other at every pass of a layer, as with FSDP2."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def whole(value: Any) -> Any:
    """The full tensor of a sharded one, which every process must ask for; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Names and whole values of the trainable parameters; with sharded ones every process must call it."""
    return {name: whole(p.detach()) for name, p in model.named_parameters() if p.requires_grad}
