"""Knowledge tables: separators, encodings, quotes and headers as they come."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from lavic.errors import UserError
from lavic.retrieval.passages import Knowledge, read_passages

AQUA = Path(__file__).parents[2].parent / "shared" / "systems" / "data" / "aqua"

ROWS = [
    ("image_file", "author", "description"),
    ("1.jpg", "A", '"La Gioconda", she is called; a café, of 1503'),
    ("2.jpg", "B", "two\nlines\tand a tab"),
    ("3.jpg", "C", ""),
    ("1.jpg", "D", "a second text"),
]
RIGHT = {"1.jpg": ROWS[1][2], "2.jpg": ROWS[2][2]}


def table(path: Path, separator: str, encoding: str, headers: tuple[str, ...] = ROWS[0], quoting: int = 0) -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator, quoting=quoting).writerows([headers, *ROWS[1:]])  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig", "utf-16"])
def test_any_separator_and_encoding(separator: str, encoding: str, tmp_path: Path) -> None:
    assert read_passages(table(tmp_path / "t.csv", separator, encoding)) == RIGHT
    quoted = table(tmp_path / "q.tsv", separator, encoding, quoting=csv.QUOTE_ALL)
    assert read_passages(quoted) == RIGHT


@pytest.mark.parametrize("headers", [("IMAGE_FILE", "AUTHOR", "DESCRIPTION"), ("Image_File ", "x", "description")])
def test_headers_in_any_case(headers: tuple[str, ...], tmp_path: Path) -> None:
    assert read_passages(table(tmp_path / "t.csv", "\t", "utf-8", headers)) == RIGHT


def test_other_columns_compression_and_long_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(f"File,Text\na.jpg,{'x' * 200_000}\n".encode()))
    assert read_passages(path, "file", "TEXT") == {"a.jpg": "x" * 200_000}
    assert Knowledge("use", path, "FILE", "text").passages() == {"a.jpg": "x" * 200_000}
    assert Knowledge("filter", path).passages() == {}


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ",", "utf-8")
    with pytest.raises(UserError, match="no column 'text'; it has image_file, author, description"):
        read_passages(path, text_column="text")
    with pytest.raises(UserError, match="names no table"):
        Knowledge("use").passages()
    with pytest.raises(UserError, match="missing"):
        read_passages(tmp_path / "missing.csv")
    (tmp_path / "open.csv").write_text('image_file,description\n1.jpg,"never ends\n')
    with pytest.raises(UserError, match="mend its quotes"):
        read_passages(tmp_path / "open.csv")
    (tmp_path / "bare.csv").write_text("image_file,description\n")
    with pytest.raises(UserError, match="has no row with both"):
        read_passages(tmp_path / "bare.csv")


@pytest.mark.skipif(not AQUA.is_dir(), reason=f"no {AQUA}")
def test_c4_semart_as_published() -> None:
    passages = read_passages(AQUA / "semart_val.csv")
    raw = (AQUA / "semart_val.csv").read_bytes().decode("latin-1").splitlines()[1:]
    assert len(passages) == len(raw) == 1069
    cells = {line.split("\t")[0]: line.split("\t")[1] for line in raw}
    quoted = {image: cell for image, cell in cells.items() if cell.startswith('"')}
    accented = {image: cell for image, cell in cells.items() if "é" in cell and '"' not in cell}
    assert len(quoted) > 50
    assert len(accented) > 20
    for image, cell in quoted.items():
        assert passages[image] == cell.strip()[1:-1].replace('""', '"').strip()
    for image, cell in accented.items():
        assert passages[image] == cell.strip()
    images = {row["image"] for row in json.loads((AQUA / "val.json").read_text()) if row["need_external_knowledge"]}
    assert images <= set(passages)
