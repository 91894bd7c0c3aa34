"""Which dtype autocast computes in, asked of a device that may not have it."""

import torch


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast where it is on for this kind of device; None where it is off or there is none."""
    kind = device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if casts else None
