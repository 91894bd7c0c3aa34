"""A projector that was trained alone, for a run to start from: as `configs/align.yaml` leaves it, or as LLaVA does."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lavic.errors import UserError
from lavic.model.adapters.full_parts import FULL_PARTS
from lavic.model.adapters.names import Renaming
from lavic.model.adapters.saved_adapter import WEIGHTS
from lavic.model.loading import Llava
from lavic.model.parts import HELD, PARTS


def start_from(llava: Llava, path: Path) -> None:
    """Puts a saved projector into LLaVA, whole and with nothing beside it.

    Args:
        llava: whose projector it becomes; it keeps its own dtype.
        path: an adapter's directory, of a run that trained the projector alone; a safetensors file; or LLaVA's
            `mm_projector.bin`, of which tensors alone are read, as pickled code would be run.

    Raises:
        UserError: there is no such file, it cannot be read, or it does not hold just this model's projector.
    """
    weights = _read(path)
    parameters = dict(llava.named_parameters())
    found = Renaming(llava).find_all(weights)
    for saved, name in found.items():
        if name is None or not name.startswith(HELD["projector"]):
            raise UserError(f"{path} holds {saved}, which is no projector's; give a projector that was trained alone.")
        if parameters[name].shape != weights[saved].shape:
            shapes = f"{list(weights[saved].shape)}, not {list(parameters[name].shape)}"
            raise UserError(
                f"The projector in {path} was made for another model: {saved} is {shapes} as in '{llava.name_or_path}'."
            )
    missing = {name for name in parameters if f".{PARTS['projector']}." in name} - set(found.values())
    if missing:
        raise UserError(f"The projector in {path} is not whole: it lacks {min(missing)}; save it again.")
    with torch.no_grad():
        for saved, name in found.items():
            parameters[str(name)].copy_(weights[saved])


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        if (path / WEIGHTS).is_file() or not (path / FULL_PARTS).is_file():
            raise UserError(f"{path} holds no projector that was trained alone; give what configs/align.yaml leaves.")
        path = path / FULL_PARTS
    try:
        read = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception:  # torch, pickle and safetensors name a broken file in many ways, and advise what would harm
        kind = "safetensors" if path.suffix == ".safetensors" else "PyTorch"
        raise UserError(f"The projector {path} cannot be read as a {kind} file; give another.") from None
    if not isinstance(read, dict) or not all(isinstance(value, Tensor) for value in read.values()):
        raise UserError(f"The projector {path} holds no named tensors; give another.")
    return read
