"""A checkpoint's weight files, read no further than their headers: what is in them, and a hash that tells it apart."""

import json
import os
import struct
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from lavic.errors import UserError
from lavic.files.hub import local_folder
from lavic.files.json_entries import read_json
from lavic.model.adapters.names import neutral

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LONGEST_HEADER = 100_000_000  # bytes, as the format's own limit
SAMPLED = 1024  # bytes at the start, in the middle and at the end of each tensor, which the hash is made of


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor stands.

    Attributes:
        file: the file that holds it.
        dtype: in the format's words, such as BF16.
        shape: its shape.
        start: its first byte in the file.
        stop: the byte behind its last.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Returns every tensor of a checkpoint's safetensors files by its name there; none where there are no such files.

    Raises:
        UserError: a file that the index names is missing, or a file is cut short or no safetensors file.
    """
    if (folder / INDEX).is_file():
        files = sorted({folder / name for name in read_json(folder / INDEX).get("weight_map", {}).values()})
    else:
        files = [folder / SINGLE] if (folder / SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    if missing := [file for file in files if not file.is_file()]:
        raise UserError(
            f"The checkpoint {folder} lacks {len(missing)} of the {len(files)} weight files that its index names,"
            f" {missing[0].name} among them; fetch it again."
        )
    return {name: tensor for file in files for name, tensor in _header(file).items()}


def _header(file: Path) -> dict[str, StoredTensor]:
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, LONGEST_HEADER):
                raise ValueError(f"its header would be {length:,} bytes long")
            stored = json.loads(stream.read(length))
        stored.pop("__metadata__", None)
        begin = 8 + length
        found = {
            name: StoredTensor(
                file, entry["dtype"], tuple(entry["shape"]), *(begin + place for place in entry["data_offsets"])
            )
            for name, entry in stored.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise UserError(f"{file} is no safetensors file ({error}); fetch the checkpoint again.") from None
    whole = max((tensor.stop for tensor in found.values()), default=begin)
    if size < whole:
        raise UserError(f"{file} is cut short: {size:,} bytes of {whole:,}; fetch the checkpoint again.")
    return found


def checkpoint_hash(name: str) -> str:
    """Returns a hash of a checkpoint's weights; "" where its files are not at hand.

    It is made of a few bytes of every tensor, under a name that all releases of transformers share: it is the same for
    one file and for shards, and another one after any training of the weights.

    Args:
        name: a directory or a hub name.
    """
    folder = local_folder(name)
    if folder is None:
        return ""
    tensors = stored_tensors(folder)
    state = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(_files(tensors)))
    return _hash(folder, state) if tensors else ""


def _files(tensors: dict[str, StoredTensor]) -> set[Path]:
    return {tensor.file for tensor in tensors.values()}


@cache
def _hash(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    """`state` says when the files changed, so that a hash is not kept longer than they are what they were."""
    tensors = stored_tensors(folder)
    open_files = {file: os.open(file, os.O_RDONLY) for file in _files(tensors)}
    digest = sha256()
    try:
        for key, name in sorted((neutral(name), name) for name in tensors):
            tensor = tensors[name]
            digest.update(f"{key} {tensor.dtype} {tensor.shape}".encode())
            last = max(tensor.start, tensor.stop - SAMPLED)
            for place in (tensor.start, (tensor.start + last) // 2, last):
                digest.update(os.pread(open_files[tensor.file], min(SAMPLED, tensor.stop - place), place))
    finally:
        for descriptor in open_files.values():
            os.close(descriptor)
    return digest.hexdigest()[:16]
