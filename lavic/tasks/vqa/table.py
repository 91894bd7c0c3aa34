"""AQUA's files -> a table of questions on disk, or a stream that reads each when it is asked for.

`{"image", "question", "answer", "need_external_knowledge"}` an entry of a `.json` list or a line of `.jsonl`, either of
them under gzip; without the last field a question needs the image alone. One pass reads a file entry by entry: into
a table with all texts, mapped into memory, or into an index of where each question stands in the file. From both any
order can be read: an epoch is shuffled as a whole and resumes exactly.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lavic.batching.cached_table import TableBuild, cached_table, file_state
from lavic.batching.streamed_rows import PLACE, StreamedRows, numbered
from lavic.catalogue.descriptions import escapes_folder
from lavic.catalogue.image_checks import ImageChecks
from lavic.errors import UserError
from lavic.files.json_entries import read_entries
from lavic.files.json_places import PlacedEntries
from lavic.files.rejected import Rejected
from lavic.retrieval.passages import Knowledge
from lavic.tasks.vqa.length import LengthLimit
from lavic.tasks.vqa.prompt import Question

log = logging.getLogger(__name__)

TEXTS = ("image", "question", "answer")
STREAMED = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("image", pa.string()),
        ("answer", pa.string()),
        ("need_external_knowledge", pa.bool_()),
        ("letters", pa.int32()),  # of question and answer: counted here, since that needs the texts in memory
        *PLACE,
    ]
)
SCHEMA = pa.schema([("question", pa.string()), *list(STREAMED)[: -len(PLACE)]])


@dataclass(frozen=True)
class Population:
    """How many questions there are, by what knowledge they need.

    Attributes:
        given: entries of the file.
        visual: those asked that the image answers.
        knowledge: those asked that need outside knowledge.
        described: of these, the ones whose image has a text in the knowledge table.
        filtered: those that need outside knowledge and are left out by `knowledge.mode: filter`.
    """

    given: int
    visual: int
    knowledge: int
    described: int
    filtered: int

    def __str__(self) -> str:
        asked = self.visual + self.knowledge
        return (
            f"{asked} of {self.given} questions are asked: {self.visual} of the image, {self.knowledge} that need "
            f"outside knowledge ({self.described} with a text); {self.filtered} such are filtered out"
        )


class QuestionTable:
    """The questions of one split, mapped from disk.

    Args:
        path: an Arrow file of `load_questions`.
        passages: what is known of each image; shown to questions that need outside knowledge.
        content: a hash of all questions in their order.
    """

    def __init__(self, path: Path, passages: Mapping[str, str], content: str = "") -> None:
        self.path, self.passages, self.content = path, passages, content
        self._table: pa.Table | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # a worker maps the file itself

    def column(self, name: str) -> pa.ChunkedArray:
        """One column that streams have too."""
        return self._mapped()[name]

    def __len__(self) -> int:
        return len(self.column("sample_id"))

    def __getitem__(self, row: int) -> Question:
        """The question of a row, with what is known of its image if it needs that."""
        [cells] = self._mapped().slice(row, 1).to_pylist()
        return self._question(cells, cells["question"])

    def content_hash(self) -> str:
        """Of all questions in their order, with what is known of their images."""
        digest = hashlib.sha256(self.content.encode())
        for image, text in sorted(self.passages.items()):
            digest.update(f"{image}\0{text}\0".encode())
        return digest.hexdigest()

    def chunks(self, name: str) -> Iterable[pa.Array]:
        """One column, a piece at a time."""
        return list(self.column(name).chunks)

    def image_numbers(self) -> npt.NDArray[np.int64]:
        """A number for the image of every question, the same where the image is, (N,)."""
        return numbered(self.chunks("image"))[1].astype(np.int64)

    def answers(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        """The different answers, and which of them each question has, (N,)."""
        return numbered(self.chunks("answer"))

    def letters(self) -> npt.NDArray[np.int32]:
        """Of each question with its description and answer, which grow with its tokens: (N,)."""
        lengths: npt.NDArray[np.int32] = self.column("letters").to_numpy().copy()
        if self.passages:
            known = {image: len(text) for image, text in self.passages.items()}
            needs = self.column("need_external_knowledge").to_numpy()
            images, which = numbered(self.chunks("image"))
            sizes = np.array([known.get(image, 0) for image in images], dtype=np.int32)
            lengths = lengths + sizes[which] * needs
        return lengths

    def _question(self, cells: dict[str, Any], question: str) -> Question:
        image, needs = cells["image"], cells["need_external_knowledge"]
        described = self.passages.get(image) if needs else None
        return Question(cells["sample_id"], image, question, cells["answer"], needs, described)

    def _mapped(self) -> pa.Table:
        if self._table is None:
            with pa.ipc.open_file(pa.memory_map(str(self.path))) as reader:
                self._table = reader.read_all()
        return self._table


class QuestionStream(QuestionTable):
    """The questions of one split, each read from its file when it is asked for.

    Args:
        path: an index of `load_questions`.
        passages: as of a table.
        content: as of a table.
        entries: the file of questions.
    """

    def __init__(self, path: Path, passages: Mapping[str, str], content: str, entries: PlacedEntries) -> None:
        super().__init__(path, passages, content)
        self.streamed = StreamedRows(path, entries)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of the index."""
        return self.streamed.column(name)

    def __len__(self) -> int:
        return len(self.streamed)

    def chunks(self, name: str) -> Iterable[pa.Array]:
        """One column, a batch of the index at a time."""
        return self.streamed.chunks(name)

    def __getitem__(self, row: int) -> Question:
        """As of a table."""
        cells, value = self.streamed.row(row)
        return self._question(cells, value["question"])


def load_questions(
    data: Path,
    checks: ImageChecks,
    knowledge: Knowledge,
    passages: Mapping[str, str],
    split: str,
    cache_dir: Path,
    streaming: bool = False,
    limit: LengthLimit | None = None,
) -> tuple[QuestionTable, Population, list[Rejected]]:
    """A file's table or stream, made now or found in `cache_dir`, how many questions it has, and what was left out.

    Args:
        data: the file.
        checks: of the folder of its images.
        knowledge: which questions are asked.
        passages: what is known of each image.
        split: for the list of what is left out.
        cache_dir: folder of tables.
        streaming: whether to make an index of the file instead of a table.
        limit: which questions are too long; None leaves none out for its length.

    Raises:
        UserError: the file cannot be read, or holds no question that can be asked, or the folder cannot be made.
    """
    if not data.is_file():
        raise UserError(f"There is no file of questions {data}.")
    state = [file_state(data), str(checks.folder.resolve()), knowledge.mode, sorted(passages)]
    path, rejected, facts = cached_table(
        cache_dir,
        "questions",
        [split, streaming, state, limit.key() if limit else None],
        STREAMED if streaming else SCHEMA,
        checks,
        lambda build: _rows(data, knowledge, passages, limit, build),
    )
    rejected = [Rejected(f"{data}: {entry.where}", entry.reason, split) for entry in rejected]
    population = Population(**facts["population"])
    if not population.visual + population.knowledge:
        first = f"{rejected[0].where}: {rejected[0].reason}" if rejected else "all need outside knowledge"
        why = first if population.given else "it is empty"
        raise UserError(
            f"No question of {data} can be asked ({why}); mend it, or set another max_length or knowledge.mode."
        )
    log.info("%s: %s", split, population)
    if streaming:
        entries = PlacedEntries(data, cache_dir)
        return QuestionStream(path, passages, facts["content"], entries), population, rejected
    return QuestionTable(path, passages, facts["content"]), population, rejected


def _rows(
    data: Path, knowledge: Knowledge, passages: Mapping[str, str], limit: LengthLimit | None, build: TableBuild
) -> Iterator[dict[str, Any]]:
    """Yields the rows of the questions that can be asked, and then notes their population and hash."""
    counts: Counter[str] = Counter()
    content = hashlib.sha256()
    for sample_id, found in enumerate(read_entries(data)):
        counts["given"] += 1
        if isinstance(found, Rejected):
            build.rejected.append(found)
            continue
        entry: Any = found.value
        if reason := _fault(entry) or _unusable(sample_id, entry, limit, build):
            build.rejected.append(Rejected(found.where, reason))
            continue
        needs = bool(entry.get("need_external_knowledge"))
        if needs and knowledge.mode == "filter":
            counts["filtered"] += 1
            continue
        counts["knowledge" if needs else "visual"] += 1
        counts["described"] += needs and entry["image"] in passages
        texts = {name: entry[name] for name in TEXTS}
        content.update(json.dumps([sample_id, *texts.values(), needs]).encode())
        letters = len(texts["question"]) + len(texts["answer"])
        start, stop = found.place
        row = {"sample_id": sample_id, **texts, "need_external_knowledge": needs, "letters": letters}
        yield {**row, "start": start, "stop": stop}
    names = ("given", "visual", "knowledge", "described", "filtered")
    build.facts |= {"population": {name: counts[name] for name in names}, "content": content.hexdigest()}


def _unusable(sample_id: int, entry: dict[str, Any], limit: LengthLimit | None, build: TableBuild) -> str:
    """Why a question cannot be asked of its image; empty when it can."""
    verdict = build.check(entry["image"])
    if isinstance(verdict, str):
        return verdict
    question = Question(sample_id, entry["image"], entry["question"], entry["answer"], False)
    return "too long for max_length" if limit and limit.exceeded_by(question, verdict) else ""


def _fault(entry: Any) -> str:
    """Why an entry is no question; empty when it is one."""
    if not isinstance(entry, dict):
        return "not an object"
    for name in TEXTS:
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            return f"no {name}"
    if not isinstance(entry.get("need_external_knowledge"), bool | None):
        return "need_external_knowledge is neither true nor false"
    return "image outside its folder" if escapes_folder(entry["image"]) else ""
