"""docs/own_catalogue.md, command by command: 200 products in a CSV, a real server, a toy model."""

import asyncio
import csv
import io
import json
import os
import random
import re
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import crawl.__main__
import lavic.__main__
from lavic.catalogue.item2meta import item_of_image
from lavic.demo.catalogue import sample_products, write_images
from lavic.demo.conversations import converse
from lavic.demo.image_server import ImageServer
from lavic.demo.products import Product
from lavic.demo.toy_llava import tiny_checkpoint
from tests.training.command_line import fork, status_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/own_catalogue.md").read_text(encoding="utf-8")
TOY = ["--trainer.accelerator=cpu", "--data.init_args.num_workers=0", "--data.init_args.batch_size=4"]
MORE = {  # what the toy needs beside each command of the page
    "crawl": ["--backoff=0.05"],
    "describe": ["--base.name=toy", "--max_new_tokens=8", "--num_workers=0"],
    "embed": ["--model.init_args.base.name=toy", "--data.init_args.num_workers=0"],
    "fit": ["--model.init_args.base.name=toy", "--data.init_args.max_samples=12", *TOY],
    "test": ["--model.init_args.base.name=toy", *TOY],
    "recommend": ["--model.init_args.base.name=toy", "--json"],
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The demo's image server in a thread, with the demo's faults; its host and port."""
    write_images(tmp_path / "served")
    ready, loop, address = threading.Event(), asyncio.new_event_loop(), []
    stop = asyncio.Event()

    async def serve() -> None:
        async with ImageServer(tmp_path / "served") as images:
            address.append(images.address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert ready.wait(10)
    yield address[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()


def write_shop(folder: Path, address: str) -> list[Product]:
    """200 products as a CSV, and conversations about them."""
    products = [product for split in sample_products() for product in split]
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["SKU", "Name", "Image URLs"])
        for product in products:
            urls = [f"http://{address}/{image.name}" for image in product.images[:1]]
            writer.writerow([product.asin, product.title, " ".join(urls)])
    conversations = folder / "data/shop/conversations"
    conversations.mkdir(parents=True)
    rng = random.Random(0)
    for split, count in (("train", 24), ("valid", 8), ("test", 8)):
        wanted = [rng.choice(products) for _ in range(count)]
        lines = [{"context": converse(p.kind, p.look, False, rng), "gt_items": [p.asin]} for p in wanted]
        (conversations / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return products


def run(command: str, words: list[str], folder: Path, typed: str) -> str:
    """`python -m WORDS...` in a folder; its standard output."""
    out, err = folder / "out.txt", folder / "err.txt"
    for said in (out, err):
        said.unlink(missing_ok=True)  # of the command before

    def main() -> int:
        os.chdir(folder)
        sys.argv, sys.stdin = words, io.TextIOWrapper(io.BytesIO(typed.encode()))
        return int((crawl.__main__ if words[0] == "crawl" else lavic.__main__).main())

    status = status_of(fork(main, {"XDG_CACHE_HOME": str(folder / "cache")}, out, err), 300)
    assert status == 0, f"{command}\n{out.read_text()[-2000:]}\n{err.read_text()[-2000:]}"
    return out.read_text()


@pytest.mark.slow
def test_the_page_leads_from_a_table_to_the_assistant(tmp_path: Path, server: str) -> None:
    products = write_shop(tmp_path, server)
    assert len(products) == 200
    tiny_checkpoint(tmp_path / "toy")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name, text in re.findall(r"```yaml (\S+)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text)
    commands = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 9
    answer = ""
    for command in commands:
        given, _, typed = command.rpartition(" | ")
        words = shlex.split(typed)
        assert words[:2] == ["python", "-m"]
        name = words[2] if words[2] == "crawl" else words[3]
        more = [*MORE.get(name, []), *(["--allow-host", server] if name == "crawl" else [])]
        answer = run(command, [*words[2:], *more], tmp_path, "".join(shlex.split(given)[1:]))
    described = json.loads((tmp_path / "data/shop/item2meta_train_described.json").read_text())
    valid = (tmp_path / "data/shop/item2meta_valid_described.jsonl").read_text().splitlines()
    texts = [meta.get("image_descriptions_llava_cleaned") for meta in described.values()]
    texts += [json.loads(line).get("image_description_llava_cleaned") for line in valid]
    held = {*described, *(item_of_image(json.loads(line)["image_name"]) for line in valid)}
    assert held == {product.asin for product in products}
    crawled = [*(tmp_path / "data/shop").glob("*_images/*.jpg")]
    assert sum(map(bool, texts)) == len(crawled) >= 198  # the server never gives two of its images
    report = json.loads((tmp_path / "out_shop/recommendation/end_to_end.json").read_text())["all"]
    assert report["conversations"] == 8
    assert report["retrieval"]["recall@20"]["value"] > 0
    shown = json.loads([line for line in answer.splitlines() if line.startswith("{")][-1])["products"]
    assert len(shown) == 5
    assert {one["item"] for one in shown} <= held
    assert all("matches" in one["why"] for one in shown)
