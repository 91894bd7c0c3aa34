"""What tells one checkpoint from another, whatever its path: what is derived from a model is kept by it."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import try_to_load_from_cache

SETTINGS = ("*.json", "*.jinja", "*.model")
WEIGHTS = ("*.safetensors", "*.bin")
BLOCK = 4096  # bytes that are read of each tensor, at its middle
BLOCKS = 256  # of a file whose tensors cannot be found without loading it


def model_identity(name: str, settings: Sequence[str] = SETTINGS) -> str:
    """A hash of a local model's settings and of a part of every tensor, or a hub's model with its commit.

    A few megabytes of 15 GB are read. The commit is that of the files on this machine; a hub's model of which there are
    none yet is known by its name alone.

    Args:
        name: a directory, or a name of the hub.
        settings: patterns of the files that matter beside the weights.
    """
    folder = Path(name)
    if not folder.is_dir():
        held = (try_to_load_from_cache(name, file) for file in ("config.json", "preprocessor_config.json"))
        commit = next((Path(path).parent.name for path in held if isinstance(path, str)), "")
        return f"{name}@{commit}" if commit else name
    digest = hashlib.sha256()
    for path in _files(folder, settings):
        _add(digest, path.name.encode(), path.read_bytes())
    for path in _files(folder, WEIGHTS):
        with path.open("rb") as file:
            _add(digest, *_sampled(file))
    return digest.hexdigest()


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def _add(digest: "hashlib._Hash", *contents: bytes) -> None:
    for content in contents:
        digest.update(len(content).to_bytes(8, "big") + content)


def _sampled(file: BinaryIO) -> Iterator[bytes]:
    size = file.seek(0, os.SEEK_END)
    yield size.to_bytes(8, "big")
    for place in _places(file, size):
        file.seek(place)
        yield file.read(BLOCK)


def _places(file: BinaryIO, size: int) -> Iterator[int]:
    """The header and every tensor's middle of a safetensors file; of another, places at equal distances."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    middles = []
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        tensors = json.loads(file.read(length)) if length < size else {}
        middles = [sum(tensor["data_offsets"]) // 2 for name, tensor in tensors.items() if name != "__metadata__"]
    if not middles:
        yield from range(0, size, max(BLOCK, size // BLOCKS))
        return
    yield from range(0, length + 8, BLOCK)
    yield from (max(0, 8 + length + middle - BLOCK // 2) for middle in sorted(middles))
