"""What tells one checkpoint from another, whatever its path: what is derived from a model is kept by it."""

import hashlib
from collections.abc import Sequence

from lavic.files.hub import local_folder
from lavic.model.checkpoint_files import checkpoint_hash

SETTINGS = ("*.json", "*.jinja", "*.model")


def model_identity(name: str, settings: Sequence[str] = SETTINGS) -> str:
    """Returns a hash of a model's settings and of a part of every tensor; its name where its files are not at hand.

    A few megabytes of 15 GB are read.

    Args:
        name: a directory, or a name of the hub.
        settings: patterns of the files that matter beside the weights.
    """
    folder = local_folder(name)
    if folder is None:
        return name
    digest = hashlib.sha256(checkpoint_hash(name).encode())
    for path in sorted({path for pattern in settings for path in folder.glob(pattern)}):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()
