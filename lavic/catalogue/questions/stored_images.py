"""Images that a table holds in its cells -> files, so that they are decoded by the one rule as all others are.

A file's name is the hash of its bytes: an image that many questions ask about is written once, and a second reading
writes nothing.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lavic.catalogue.questions.cells import Unfit
from lavic.errors import UserError
from lavic.files import writing_bytes

_KINDS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*\0": ".tif",
}


class StoredImages:
    """A folder of images that were found in tables.

    Args:
        folder: made when the first image is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = 0

    def name_of(self, cell: Any) -> Any:
        """The file name of a cell's image; what is no image in a cell (a name, nothing) as it is.

        Args:
            cell: `{"bytes", "path"}` as the hub's tables have it, or bytes.

        Raises:
            Unfit: the cell holds nothing.
            UserError: the file cannot be written.
        """
        data = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if isinstance(cell, Mapping) and data is None and isinstance(cell.get("path"), str):
            return PurePosixPath(cell["path"]).name
        if isinstance(cell, Mapping) and not data:
            raise Unfit("image is empty")
        return self._kept(data) if isinstance(data, bytes) else cell

    def _kept(self, data: bytes) -> str:
        suffix = next((suffix for magic, suffix in _KINDS.items() if data.startswith(magic)), ".img")
        path = self.folder / f"{hashlib.sha256(data).hexdigest()[:32]}{suffix}"
        if not path.is_file():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with writing_bytes(path) as stream:
                    stream.write(data)
            except OSError as error:
                raise UserError(
                    f"The image {path} cannot be written ({error.strerror or error}); give another folder by "
                    "data.init_args.cache_dir."
                ) from None
            self.kept += 1
        return path.name
