"""Metadata files -> described images: what LaViC's `item2meta` files say, checked entry by entry.

Two published forms are read (docs/data.md has examples):

- `.json`: `{ASIN: {"title": ..., "image_descriptions_llava_cleaned": {"ASIN_i.jpg": text}}}`
- `.jsonl`: one `{"title", "image_name", "image_description_llava_cleaned"}` a line

Only the text is looked at here; whether the images are there and whole is checked by
`lavic/tasks/distillation/samples.py`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lavic.errors import UserError


@dataclass(frozen=True, slots=True)
class DescribedImage:
    """One image of an item, and the text that the published LLaVA wrote about it."""

    item: str
    title: str
    image: str  # file name inside the images folder
    description: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that was left out: `where` is the item, the image, or the line it stands in."""

    where: str
    reason: str


def read_described_images(path: Path) -> Iterator[DescribedImage | Skipped]:
    """All described images of a metadata file in the file's order, and the entries that cannot be used.

    Raises:
        UserError: the file is missing, is not `.json` or `.jsonl`, or is not valid JSON (names the line).
    """
    if not path.is_file():
        raise UserError(f"The metadata file {path} does not exist; give the path of an item2meta .json or .jsonl file.")
    if path.suffix not in (".json", ".jsonl"):
        raise UserError(f"The metadata file {path} ends in '{path.suffix}'; it must be a .json or a .jsonl file.")
    entries = _read_json(path) if path.suffix == ".json" else _read_jsonl(path)
    seen: set[str] = set()
    for entry in entries:
        if isinstance(entry, DescribedImage):
            if entry.image in seen:
                entry = Skipped(entry.image, "duplicate image")
            else:
                seen.add(entry.image)
        yield entry


def item_of_image(image: str) -> str:
    """`B08LYS9WYD_4.jpg` -> `B08LYS9WYD`: published image names are the item's ID, `_`, and a number."""
    return PurePosixPath(image).stem.rpartition("_")[0] or PurePosixPath(image).stem


def escapes_folder(name: str) -> bool:
    """Whether a file name would lead out of the folder it is joined to, on any system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return absolute or ".." in windows.parts or "\0" in name


def _read_json(path: Path) -> Iterator[DescribedImage | Skipped]:
    twice: list[str] = []

    def keep_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # json keeps the last of two equal keys without a word; here the first stays and the second is reported
        kept: dict[str, Any] = {}
        for key, value in pairs:
            if key in kept:
                twice.append(key)
            kept.setdefault(key, value)
        return kept

    try:
        catalogue = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=keep_first)
    except json.JSONDecodeError as error:
        raise _malformed(path, error.lineno, error.msg) from None
    except UnicodeDecodeError:
        raise UserError(f"The metadata file {path} is not UTF-8 text; save it as UTF-8.") from None
    if not isinstance(catalogue, dict):
        raise UserError(f"The metadata file {path} holds a {type(catalogue).__name__}, not an object of items by ASIN.")
    yield from (Skipped(key, "duplicate key") for key in twice)
    for item, meta in catalogue.items():
        if not isinstance(meta, dict):
            yield Skipped(item, "not an object")
            continue
        descriptions = meta.get("image_descriptions_llava_cleaned")
        if not isinstance(descriptions, dict) or not descriptions:
            yield Skipped(item, "no description")
            continue
        for image, description in descriptions.items():
            yield _checked(item, meta.get("title"), image, description, where=image or item)


def _read_jsonl(path: Path) -> Iterator[DescribedImage | Skipped]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                meta = json.loads(line.decode("utf-8"))
            except json.JSONDecodeError as error:
                raise _malformed(path, number, error.msg) from None
            except UnicodeDecodeError:
                raise _malformed(path, number, "not UTF-8") from None
            where = f"line {number}"
            if not isinstance(meta, dict):
                yield Skipped(where, "not an object")
                continue
            image = meta.get("image_name")
            item = item_of_image(image) if isinstance(image, str) else ""
            description = meta.get("image_description_llava_cleaned")
            yield _checked(item, meta.get("title"), image, description, where=where)


def _checked(item: str, title: Any, image: Any, description: Any, where: str) -> DescribedImage | Skipped:
    if not isinstance(image, str) or not image.strip():
        return Skipped(where, "no image name")
    if escapes_folder(image):
        return Skipped(where, "image name leaves the folder")
    if not isinstance(title, str) or not title.strip():
        return Skipped(where, "no title")
    if not isinstance(description, str) or not description.strip():
        return Skipped(where, "no description")
    if not all(map(_is_text, (item, image, title, description))):
        return Skipped(where, "not valid Unicode")
    return DescribedImage(item, title.strip(), image, description.strip())


def _is_text(value: str) -> bool:
    """JSON can escape half a character (`"\\ud800"`), which no tokenizer and no file takes."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _malformed(path: Path, line: int, what: str) -> UserError:
    return UserError(f"The metadata file {path} is not valid JSON in line {line} ({what}); mend or remove that line.")
