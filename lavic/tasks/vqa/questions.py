"""AQUA's files -> a table of questions on disk, which every process maps and none holds in memory.

`{"image", "question", "answer", "need_external_knowledge"}` an entry of a `.json` list or a line of `.jsonl`, either of
them under gzip; without the last field a question needs the image alone. The files are read entry by entry into an
Arrow table, from which any order can be read: an epoch is shuffled as a whole, resumes exactly and needs constant
memory, whatever the size of the files.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lavic.batching.left_out import LeftOut
from lavic.catalogue.descriptions import escapes_folder
from lavic.catalogue.image_checks import ImageChecks
from lavic.catalogue.images import RULE
from lavic.errors import UserError
from lavic.files import write_text
from lavic.files.json_entries import Malformed, read_entries, read_json
from lavic.retrieval.passages import Knowledge
from lavic.tasks.vqa.prompt import Question

log = logging.getLogger(__name__)

TEXTS = ("image", "question", "answer")
FORM = 1  # of the table below; a new number makes older caches void
ROWS = 4096  # of a batch while the table is written
SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("image", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("need_external_knowledge", pa.bool_()),
        ("width", pa.int64()),  # of the image, upright, in pixels
        ("height", pa.int64()),
        ("letters", pa.int64()),  # of question and answer: counted here, since that needs the texts' pages in memory
    ]
)


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
        path: an Arrow file that `write_questions` has made.
        passages: what is known of each image; shown to questions that need outside knowledge.
    """

    def __init__(self, path: Path, passages: Mapping[str, str]) -> None:
        self.path, self.passages = path, passages
        self._table: pa.Table | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # a worker maps the file itself

    @property
    def table(self) -> pa.Table:
        """The mapped table."""
        if self._table is None:
            with pa.ipc.open_file(pa.memory_map(str(self.path))) as reader:
                self._table = reader.read_all()
        return self._table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, row: int) -> Question:
        """The question of a row, with what is known of its image if it needs that."""
        values = self.table.slice(row, 1).to_pylist()[0]
        for name in ("width", "height", "letters"):
            del values[name]
        described = self.passages.get(values["image"]) if values["need_external_knowledge"] else None
        return Question(**values, description=described)

    def column(self, name: str) -> list[Any]:
        """One column as a list."""
        return list(self.table.column(name).to_pylist())

    def content_hash(self) -> str:
        """Of all questions in their order, with what is known of their images."""
        digest = hashlib.sha256()
        for batch in self.table.to_batches(ROWS):
            for values in batch.to_pylist():
                digest.update(json.dumps(list(values.values())).encode())
        for image, text in sorted(self.passages.items()):
            digest.update(f"{image}\0{text}\0".encode())
        return digest.hexdigest()

    def letters(self) -> npt.NDArray[np.int64]:
        """Of each question with its description and answer, which grow with its tokens: (N,)."""
        lengths: npt.NDArray[np.int64] = self.table["letters"].to_numpy().copy()
        if self.passages:
            known = {image: len(text) for image, text in self.passages.items()}
            needs = self.table["need_external_knowledge"].to_numpy()
            images = self.table["image"].dictionary_encode().combine_chunks()
            sizes = np.array([known.get(image, 0) for image in images.dictionary.to_pylist()], dtype=np.int64)
            lengths = lengths + sizes[images.indices.to_numpy()] * needs
        return lengths


def load_questions(
    data: Path, checks: ImageChecks, knowledge: Knowledge, passages: Mapping[str, str], split: str, cache_dir: Path
) -> tuple[QuestionTable, Population, list[LeftOut]]:
    """A file's table, made now or found in `cache_dir`, how many questions it has, and what was left out.

    A table belongs to one state of the file, the images and the knowledge table: its name is their hash.

    Raises:
        UserError: as `write_questions`, or the cache folder cannot be made.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        stat = data.stat()
    except FileNotFoundError:
        raise UserError(f"There is no file of questions {data}.") from None
    except OSError as error:
        raise UserError(
            f"The cache folder {cache_dir} cannot be made ({error.strerror}); give another by data.init_args.cache_dir."
        ) from None
    state = (str(data.resolve()), stat.st_size, stat.st_mtime_ns, checks.listing, knowledge.mode, sorted(passages))
    name = hashlib.sha256(json.dumps([FORM, RULE, split, state]).encode("utf-8", "surrogatepass")).hexdigest()[:24]
    table, told = cache_dir / f"questions-{name}.arrow", cache_dir / f"questions-{name}.json"
    if table.is_file() and told.is_file():
        found = read_json(told)
        population, left_out = Population(**found["population"]), [LeftOut(**one) for one in found["left_out"]]
    else:
        population, left_out = write_questions(data, checks, knowledge, passages, split, table)
        found = {"population": asdict(population), "left_out": [asdict(one) for one in left_out]}
        write_text(told, json.dumps(found))
    log.info("%s: %s", split, population)
    return QuestionTable(table, passages), population, left_out


def write_questions(
    data: Path, checks: ImageChecks, knowledge: Knowledge, passages: Mapping[str, str], split: str, out: Path
) -> tuple[Population, list[LeftOut]]:
    """Reads a file of questions into an Arrow table at `out`, and checks each image once.

    Args:
        data: the file.
        checks: of the folder of its images.
        knowledge: which questions are asked.
        passages: what is known of each image.
        split: for the list of what is left out.
        out: the table.

    Raises:
        UserError: the file cannot be read, or holds no question that can be asked.
    """
    counts: Counter[str] = Counter()
    left_out: list[LeftOut] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        rows: list[dict[str, Any]] = []
        for sample_id, (where, entry) in enumerate(_entries(data)):
            counts["given"] += 1
            reason = entry if isinstance(entry, str) else _fault(entry)
            size = reason or checks.check(entry["image"])
            if isinstance(size, str):
                left_out.append(LeftOut(split, f"{data}: {where}", size))
                continue
            needs = bool(entry.get("need_external_knowledge"))
            if needs and knowledge.mode == "filter":
                counts["filtered"] += 1
                continue
            counts["knowledge" if needs else "visual"] += 1
            counts["described"] += needs and entry["image"] in passages
            texts = {name: entry[name] for name in TEXTS}
            width, height = size
            measured = {"width": width, "height": height, "letters": len(texts["question"]) + len(texts["answer"])}
            rows.append({"sample_id": sample_id, **texts, "need_external_knowledge": needs, **measured})
            if len(rows) == ROWS:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA))
                rows = []
        writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA))
    population = Population(*(counts[name] for name in ("given", "visual", "knowledge", "described", "filtered")))
    if not population.visual + population.knowledge:
        first = f"{left_out[0].where}: {left_out[0].reason}" if left_out else "all need outside knowledge"
        why = first if counts["given"] else "it is empty"
        raise UserError(f"No question of {data} can be asked ({why}); mend it, or set another knowledge.mode.")
    partial.replace(out)
    return population, left_out


def _entries(data: Path) -> Iterator[tuple[str, Any]]:
    """Where each entry stands, and the entry, or the reason why it cannot be read."""
    for found in read_entries(data):
        yield found.where, found.reason if isinstance(found, Malformed) else found.value


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
