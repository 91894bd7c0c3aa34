"""Product tables of many forms become the same item2meta; what is left out is listed; a kill leaves no half."""

import csv
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from crawl.sources import Wanted, read_source
from lavic.catalogue.importing import LEFT_OUT, TRAIN, VALID, import_table
from lavic.catalogue.item2meta import item_of_image
from lavic.commands import import_
from lavic.errors import UserError
from lavic.files.rejected import Rejected

ROOT = Path(__file__).parents[2]
PRODUCTS = [
    {
        "sku": f"SKU-{n}",
        "Name": f"Größe {n}, „rund\u201c",
        "Image URLs": [f"https://h/{n}/a,b.jpg", f"http://h/{n}/c.jpg"],
    }
    for n in range(30)
]
EXPECTED = {
    p["sku"]: {"title": p["Name"], "images": [{"large": url} for url in p["Image URLs"]]} for p in PRODUCTS
}  # fmt: skip


def as_csv(delimiter: str, between: str, encoding: str = "utf-8", newline: str = "\n") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline)
    writer.writerow(PRODUCTS[0])
    writer.writerows([p["sku"], p["Name"], between.join(p["Image URLs"])] for p in PRODUCTS)
    return text.getvalue().encode(encoding)


def as_lines(**more: Any) -> bytes:
    return "".join(json.dumps({**p, **more}) + "\n" for p in PRODUCTS).encode()


def as_parquet() -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PRODUCTS), sink)
    return bytes(sink.getvalue().to_pybytes())


FORMS = {
    "comma.csv": as_csv(",", " | "),
    "semicolon.csv": as_csv(";", ", ", newline="\r\n"),
    "tab.tsv": as_csv("\t", "\n"),
    "pipe.txt": as_csv("|", ";"),
    "bom.csv": as_csv(",", " ", "utf-8-sig"),
    "utf16.csv": as_csv("\t", " ", "utf-16"),
    "windows.csv": as_csv(";", " ", "cp1252"),
    "table.csv.gz": gzip.compress(as_csv(",", " ")),
    "lines.jsonl": as_lines(),
    "list.json": json.dumps(PRODUCTS).encode(),
    "object.json": json.dumps({p["sku"]: {"Name": p["Name"], "images": p["Image URLs"]} for p in PRODUCTS}).encode(),
    "lines.json.gz": gzip.compress(as_lines()),
    "table.parquet": as_parquet(),
    "parquet.under.another.name": as_parquet(),
}


def imported(out: Path) -> dict[str, Any]:
    """Both files as one catalogue."""
    items: dict[str, Any] = json.loads((out / TRAIN).read_text(encoding="utf-8"))
    for line in (out / VALID).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        item = items.setdefault(item_of_image(entry["image_name"]), {"title": entry["title"], "images": []})
        assert entry["image_name"].endswith(f"_{len(item['images'])}.jpg")
        item["images"].append({"large": entry["image"]})
    return items


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_catalogue(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMS[name])
    done = import_table(tmp_path / name, tmp_path / "out", valid_share=0.2)
    assert imported(tmp_path / "out") == EXPECTED
    assert (done.items, done.images, done.left_out.total()) == (30, 60, 0)
    assert 0 < done.valid_items < 15
    wanted = [entry for file in (TRAIN, VALID) for entry in read_source(tmp_path / "out" / file)]
    assert not [entry for entry in wanted if isinstance(entry, Rejected)]
    assert {entry.name: entry.url for entry in wanted if isinstance(entry, Wanted)} == {
        f"{p['sku']}_{number}.jpg": url for p in PRODUCTS for number, url in enumerate(p["Image URLs"])
    }


LARGE = {"hi_res": None, "thumb": "https://m/t.jpg", "large": "https://m/l.jpg", "variant": "MAIN"}


@pytest.mark.parametrize(
    ("images", "urls"),
    [
        ([LARGE, {**LARGE, "large": "https://m/2.jpg"}], ["https://m/l.jpg", "https://m/2.jpg"]),
        ({"hi_res": [None, "https://m/h"], "large": ["https://m/l", ""]}, ["https://m/l", "https://m/h"]),
        ([{"large": None, "hi_res": "https://m/h", "thumb": "https://m/t"}], ["https://m/h"]),
        ([], []),
        ({"hi_res": [], "large": [], "thumb": [], "variant": []}, []),
        (None, []),
        ('["https://m/1", "https://m/2"]', ["https://m/1", "https://m/2"]),
        ("https://m/1?a=1,2;3,https://m/2", ["https://m/1?a=1,2;3", "https://m/2"]),
    ],
)  # fmt: skip
def test_amazon_reviews_2023_and_its_relatives(images: Any, urls: list[str], tmp_path: Path) -> None:
    row = {
        "main_category": "All Beauty", "title": "Howard LC0008 Leather Conditioner", "average_rating": 4.8,
        "features": [], "description": ["Two", "parts"], "price": None, "images": images, "videos": [],
        "store": "Howard", "categories": [], "details": {"UPC": "1"}, "bought_together": None,
        "parent_asin": "B01CUPMQZE",
    }  # fmt: skip
    (tmp_path / "meta_All_Beauty.jsonl").write_text(json.dumps(row) + "\n")
    import_table(tmp_path / "meta_All_Beauty.jsonl", tmp_path / "out", valid_share=0)
    [(item, meta)] = imported(tmp_path / "out").items()
    assert item == "B01CUPMQZE"
    assert meta == {
        "title": row["title"], "images": [{"large": url} for url in urls], "description": "Two parts",
        "brand": "Howard", "category": "All Beauty", "attributes": {"average_rating": 4.8, "details": {"UPC": "1"}},
    }  # fmt: skip


def test_what_is_left_out_is_counted_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop.csv").write_text(
        "id,title,image,image_2\n1,One,http://h/1,http://h/2\n1,,http://h/3,\n,No ID,,\na/b,Slash,,\n..,Dots,,\n"
        "2,Two,C:\\two.jpg,\n3,Three,http://h/3,x,too many\n1,One again,,\n4,,http://h/4,\n"
    )
    import_.main([str(tmp_path / "shop.csv"), "--out", str(tmp_path / "out"), "--valid_share", "0"])
    assert imported(tmp_path / "out") == {
        "1": {"title": "One", "images": [{"large": f"http://h/{n}"} for n in (1, 2, 3)]},
        "2": {"title": "Two", "images": []},
        "4": {"title": "", "images": [{"large": "http://h/4"}]},
    }
    said = capsys.readouterr().out
    listed = [json.loads(line) for line in (tmp_path / "out" / LEFT_OUT).read_text().splitlines()]
    assert {entry["where"]: entry["reason"] for entry in listed} == {
        "line 4": "no ID",
        "line 5": "an ID that cannot be part of a file name",
        "line 6": "an ID that cannot be part of a file name",
        "line 7: C:\\two.jpg": "an image that is not a URL",
        "line 8": "5 cells, but 4 columns",
        "line 9": "duplicate ID",
    }
    assert "left out: 2 x an ID that cannot be part of a file name" in said
    assert "1 items have none, 1 no title" in said


def test_columns_are_named_or_the_table_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("nummer,bezeichnung,bild\n7,Hut,http://h/7\n")
    with pytest.raises(UserError, match=r"looks like the id \(nummer, bezeichnung, bild\); name it with --id"):
        import_table(table, tmp_path / "out")
    with pytest.raises(UserError, match="has no column 'titel' for the title"):
        import_table(table, tmp_path / "out", {"id": "nummer", "title": "titel"})
    import_table(table, tmp_path / "out", {"id": "nummer", "title": "bezeichnung", "images": ["bild"]}, valid_share=0)
    assert imported(tmp_path / "out") == {"7": {"title": "Hut", "images": [{"large": "http://h/7"}]}}
    table.write_bytes(b"id,title\n1,\x81\x8d\n")
    with pytest.raises(UserError, match="give its --encoding"):
        import_table(table, tmp_path / "out2")
    assert not list((tmp_path / "out2").iterdir())
    for text in ("", "id,title\n", "id,title\n,x\n"):
        table.write_text(text)
        with pytest.raises(UserError):
            import_table(table, tmp_path / "out2")
    table.write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match="Parquet table"):
        import_table(table, tmp_path / "out2")


def test_killed_it_leaves_the_old_files_and_runs_again_to_the_whole(tmp_path: Path) -> None:
    def start(table: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lavic", "import", str(table), "--out", str(out)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    out = tmp_path / "out"
    (tmp_path / "old.csv").write_text("id,title\n1,Old\n")
    import_table(tmp_path / "old.csv", out, valid_share=0)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with (tmp_path / "new.csv").open("w") as table:
        table.write("id,title,image\n")
        table.writelines(f"{n},Title {n},http://h/{n}\n" for n in range(60_000))
    killed = start(tmp_path / "new.csv")
    while not any(path.stat().st_size > 100_000 for path in out.glob(".*.partial")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert {name: (out / name).read_bytes() for name in before} == before
    assert start(tmp_path / "new.csv").wait() == 0
    assert len(imported(out)) == 60_000
    assert sorted(path.name for path in out.iterdir()) == sorted(before)


MEMORY = """
import resource, sys
from pathlib import Path
from lavic.catalogue.importing import import_table
import_table(Path(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_grows_by_the_ids_alone(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        table = tmp_path / f"{rows}.csv"
        with table.open("w") as file:
            file.write("id,title,images\n")
            file.writelines(
                f"B{n:09d},{'Some title ' * 8},https://h/{n}.jpg https://h/{n}_2.jpg\n" for n in range(rows)
            )
        command = [sys.executable, "-c", MEMORY, str(table), str(tmp_path / "out")]
        out = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, env={**os.environ}).stdout
        return int(out) * 1024

    assert peak(300_000) - peak(10_000) < 300_000 * 100  # a hash in a set; the table has 48 MB


@pytest.mark.parametrize("rows", [20, 20_000])
def test_a_damaged_gzip_table_is_named(tmp_path: Path, rows: int) -> None:
    table = tmp_path / "table.csv.gz"
    whole = gzip.compress("".join(["id,title\n", *(f"{n},{n * 7919}\n" for n in range(rows))]).encode())
    table.write_bytes(whole[: len(whole) - 40])
    with pytest.raises(UserError, match=re.escape(f"{table} is a gzip file that is cut")):
        import_table(table, tmp_path / "out")
