"""A benchmark's file of questions, as it is published -> its questions, one at a time; each is used or listed.

The file may be JSON in any shape (a list, lines, an object by IDs, a list within an object), under gzip or not, or a
Parquet table with its images inside, or a folder of such tables. What form it is in is found by its fields.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lavic.catalogue.questions.annotations import Annotations
from lavic.catalogue.questions.cells import Unfit
from lavic.catalogue.questions.forms import Form, Given, form_of
from lavic.catalogue.questions.question import VisualQuestion
from lavic.catalogue.questions.stored_images import StoredImages
from lavic.catalogue.tables import read_rows
from lavic.errors import UserError
from lavic.files.json_entries import Entry, read_json
from lavic.files.json_lists import read_listed
from lavic.files.rejected import Rejected

LISTS = ("questions", "data", "images")
LOOKED_AT = 100  # entries in which a form is looked for
SPLITS = "pid_splits.json"  # ScienceQA's

_COCO = re.compile(r"(train|val|test)(?:-dev)?(20\d\d)")  # test-dev2015 asks about images of test2015


@dataclass(frozen=True)
class QuestionFile:
    """A benchmark's file of questions.

    Attributes:
        path: the file, or a folder of Parquet tables.
        annotations: the answers' own file, of VQAv2 and OK-VQA.
        split: the part that is asked, of ScienceQA, whose file holds all; None asks all.
        images: where images that stand in a table are kept.
    """

    path: Path
    images: StoredImages
    annotations: Annotations | None = None
    split: str | None = None

    def form(self) -> Form:
        """The form of the file's questions.

        Raises:
            UserError: none of its first entries is a question that is known.
        """
        for number, given in enumerate(self._given()):
            if number == LOOKED_AT:
                break
            if not isinstance(given, Rejected) and (found := form_of(given[1].fields)):
                return found
        raise UserError(
            f"{self.path} holds no questions of a known form: at least question, image and answer; docs/vqa.md lists "
            "the fields of every benchmark's file."
        )

    def read(self) -> Iterator[VisualQuestion | Rejected]:
        """Every question in the file's order, or why it cannot be used.

        Raises:
            UserError: as `form`; or the file cannot be read, or not from some entry on.
        """
        form = self.form()
        for found in self._given():
            if isinstance(found, Rejected):
                yield found
                continue
            where, given = found
            try:
                questions = form.parse(replace(given, fields=self._with_image_names(given.fields)))
            except Unfit as unfit:
                yield Rejected(where, str(unfit))
                continue
            for question in questions:
                yield question if _is_inside(question.image) else Rejected(where, "image outside its folder")

    def _given(self) -> Iterator[tuple[str, Given] | Rejected]:
        """The entries of the split, each with its annotation."""
        header: dict[str, Any] = {}
        asked = self._of_split()
        for number, entry in enumerate(self._entries(header), 1):
            if isinstance(entry, Rejected):
                yield entry
            elif not isinstance(entry.value, dict):
                yield Rejected(entry.where, "not an object")
            elif self._is_asked(entry, asked):
                yield self._joined(entry, Given(entry.value, entry.key, number, self.path.name, self._subset(header)))

    def _is_asked(self, entry: Entry, asked: set[str] | None) -> bool:
        written = entry.value.get("split")
        return entry.key in asked if asked is not None else self.split is None or written in (None, self.split)

    def _joined(self, entry: Entry, given: Given) -> tuple[str, Given] | Rejected:
        if self.annotations is None:
            return entry.where, given
        annotation = self.annotations.of(given.fields.get("question_id"))
        if annotation is None:
            return Rejected(entry.where, f"no annotation in {self.annotations.path.name}")
        return entry.where, replace(given, fields={**annotation, **given.fields})

    def _entries(self, header: dict[str, Any]) -> Iterator[Entry | Rejected]:
        if tables := _tables(self.path):
            for path in tables:
                for place, row in read_rows(path):
                    where = place if len(tables) == 1 else f"{path.name}: {place}"
                    yield Rejected(where, row) if isinstance(row, str) else Entry(where, row)
            return
        yield from read_listed(self.path, LISTS, header, "question")

    def _subset(self, header: dict[str, Any]) -> str:
        """Which part of COCO's images, as the file or its annotations say, or their names."""
        said = [header, self.annotations.header if self.annotations else {}]
        names = [str(part.get("data_subtype", "")) for part in said] + [self.path.name]
        names += [self.annotations.path.name] if self.annotations else []
        return next(("".join(match.groups()) for name in names if (match := _COCO.search(name))), "")

    def _of_split(self) -> set[str] | None:
        """The IDs of the split, of ScienceQA; None asks all."""
        beside = self.path.parent / SPLITS
        if self.split is None or not beside.is_file():
            return None
        splits = read_json(beside)
        if not isinstance(splits, dict) or not isinstance(splits.get(self.split), list):
            known = ", ".join(splits) if isinstance(splits, dict) else "nothing"
            raise UserError(f"{beside} has no split '{self.split}'; it has {known}.")
        return {str(one) for one in splits[self.split]}

    def _with_image_names(self, fields: Any) -> Any:
        if not isinstance(fields.get("image"), dict | bytes):
            return fields
        return {**fields, "image": self.images.name_of(fields["image"])}


def _tables(path: Path) -> list[Path]:
    """The Parquet tables of a path; none where it is a file of another kind."""
    if path.is_dir():
        if not (found := sorted(path.glob("*.parquet"))):
            raise UserError(f"The folder {path} holds no Parquet tables; give a file, or the folder with *.parquet.")
        return found
    if not path.is_file():
        raise UserError(f"There is no file of questions {path}.")
    with path.open("rb") as file:
        return [path] if file.read(4) == b"PAR1" else []


def _is_inside(image: str | None) -> bool:
    return image is None or not (Path(image).is_absolute() or ".." in Path(image).parts)
