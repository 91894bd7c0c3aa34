"""A folder put in place whole: written beside, flushed to the disk, and exchanged with the old one in one step."""

import ctypes
import os
import shutil
from pathlib import Path
from typing import Any

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' renameat2


def flush_folder(folder: Path) -> None:
    """Makes sure that all of a folder is on the disk before it gets its final name."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def put_in_place(new: Path, final: Path) -> None:
    """Gives a finished folder its final name, in the place of whatever has it now.

    Args:
        new: the finished folder, on the same file system.
        final: its name; an older folder there is replaced and deleted.
    """
    if not final.exists():
        new.rename(final)
        return
    if not _exchange(new, final):  # no such call on this system: the name is free for an instant
        old = final.with_name(f".{final.name}.old")
        remove(old)
        final.rename(old)
        new.rename(final)
        new = old
    remove(new)


def remove(path: Path) -> None:
    """Deletes a folder with all that is in it, or a file; nothing where there is neither."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths in one step, where the system can."""
    renameat2: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
