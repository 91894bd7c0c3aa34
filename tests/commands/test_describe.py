"""`python -m lavic describe`: both published forms, several processes, a kill, what is left out, mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lavic.catalogue.description_journal import Journal
from lavic.catalogue.descriptions import DescribedImage, read_described_images
from lavic.commands import describe
from lavic.errors import UserError
from lavic.model.loading import BaseModel, load_llava
from lavic.tasks.distillation import teacher

ROOT = Path(__file__).parents[2]
TEXTS = "image_descriptions_llava_cleaned"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """8 items of two images; one image is missing, one broken, one described already, one item has none."""
    (tmp_path / "images").mkdir()
    items: dict[str, Any] = {}
    for n in range(8):
        item = f"SKU-{n}"
        items[item] = {
            "title": f"Kitchen towel {n}",
            "price": n,
            "images": [{"large": f"http://h/{i}"} for i in (0, 1)],
        }
        for i in range(2):
            size = (100 + 70 * n, 300 - 30 * n + 200 * i)
            Image.new("RGB", size, (30 * n, 200 - 20 * n, 90 * i)).save(tmp_path / "images" / f"{item}_{i}.jpg")
    (tmp_path / "images" / "SKU-1_1.jpg").unlink()
    (tmp_path / "images" / "SKU-2_0.jpg").write_bytes(b"no image")
    items["SKU-3"][TEXTS] = {"SKU-3_0.jpg": "An old text."}
    items["SKU-8"] = {"title": "Nothing to see", "images": []}
    (tmp_path / "items.json").write_text(json.dumps(items))
    return tmp_path


def arguments(shop: Path, tiny: Path, *more: str) -> list[str]:
    return [
        "--config", str(ROOT / "configs/describe.yaml"), f"--base.name={tiny}", f"--metadata={shop / 'items.json'}",
        f"--images_dir={shop / 'images'}", "--num_workers=0", "--max_new_tokens=6", "--batch_size=4", *more,
    ]  # fmt: skip


def journal(shop: Path, output: str = "items_described.json") -> Counter[str]:
    lines = [line for path in (shop / f"{output}.journal").rglob("*.jsonl") for line in path.read_text().splitlines()]
    return Counter(json.loads(line)["image"] for line in lines if line)


def test_describes_what_has_no_text_and_keeps_the_rest(
    shop: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (shop / "items.json").read_bytes()
    assert describe.main(arguments(shop, tiny)) == 0
    said = capsys.readouterr()
    assert "13 images described" in said.out
    assert "left out: 1 x image missing\nleft out: 1 x image broken" in said.out
    assert (shop / "items.json").read_bytes() == before
    new, old = json.loads((shop / "items_described.json").read_text()), json.loads(before)
    assert {item: {**meta, TEXTS: None} for item, meta in new.items()} == {
        item: {**meta, TEXTS: None} for item, meta in old.items()
    }
    assert new["SKU-3"][TEXTS]["SKU-3_0.jpg"] == "An old text."
    described = {e.image for e in read_described_images(shop / "items_described.json") if isinstance(e, DescribedImage)}
    everything = {f"SKU-{n}_{i}.jpg" for n in range(8) for i in (0, 1)}
    assert described == everything - {"SKU-1_1.jpg", "SKU-2_0.jpg"}
    listed = (shop / "items_described.json.left_out.jsonl").read_text().splitlines()
    assert {json.loads(line)["where"] for line in listed} == {"SKU-1_1.jpg", "SKU-2_0.jpg"}

    # again: nothing twice, and what is mended is described
    Image.new("RGB", (80, 80), "red").save(shop / "images" / "SKU-2_0.jpg")
    assert describe.main(arguments(shop, tiny)) == 0
    assert "14 images described" in capsys.readouterr().out
    assert {image: n for image, n in journal(shop).items() if n > 1} == {"SKU-1_1.jpg": 2, "SKU-2_0.jpg": 2}


def test_images_as_json_lines_stay_json_lines(shop: Path, tiny: Path) -> None:
    lines = [{"title": "Towel", "image_name": f"SKU-{n}_0.jpg", "image": "http://h/0"} for n in (4, 5)]
    (shop / "valid.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    describe.main(arguments(shop, tiny, f"--metadata={shop / 'valid.jsonl'}"))
    new = [json.loads(line) for line in (shop / "valid_described.jsonl").read_text().splitlines()]
    texts = [line.pop("image_description_llava_cleaned") for line in new]
    assert new == lines
    assert all(texts)


def test_processes_share_the_images_and_the_last_writes(
    shop: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    describe.main(arguments(shop, tiny, f"--output={shop / 'alone.json'}"))
    for rank, names in (
        (2, ("RANK", "WORLD_SIZE")),
        (0, ("SLURM_PROCID", "SLURM_NTASKS")),
        (1, ("RANK", "WORLD_SIZE")),
    ):
        assert not (shop / "items_described.json").exists()
        with monkeypatch.context() as patch:
            patch.setenv(names[0], str(rank))
            patch.setenv(names[1], "3")
            describe.main(arguments(shop, tiny))
    assert set(journal(shop).values()) == {1}
    assert (shop / "items_described.json").read_text() == (shop / "alone.json").read_text()


def test_two_that_end_together_write_and_say_it_once(
    shop: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    turn = Journal.turn

    @contextmanager
    def late(journal: Journal) -> Iterator[None]:
        """The first to end is overtaken: the second ends, and writes, before it has its turn."""
        if os.environ["RANK"] == "0":
            monkeypatch.setenv("RANK", "1")
            describe.main(arguments(shop, tiny))
        with turn(journal):
            yield

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(Journal, "turn", late)
    describe.main(arguments(shop, tiny))
    assert capsys.readouterr().out.count("13 images described") == 1
    describe.main(arguments(shop, tiny))  # a later call says again what there is
    assert capsys.readouterr().out.count("13 images described") == 1


@pytest.mark.slow
def test_two_processes_of_torchrun_say_what_one_says(shop: Path, tiny: Path) -> None:
    describe.main(arguments(shop, tiny, f"--output={shop / 'alone.json'}"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lavic"]
    environment = {**os.environ, "TMPDIR": str(shop)}  # where torchrun leaves a folder
    done = subprocess.run(
        [*command, "describe", *arguments(shop, tiny)], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("13 images described") == 1
    assert (shop / "items_described.json").read_text() == (shop / "alone.json").read_text()
    files = sorted((shop / "items_described.json.journal").rglob("*.jsonl"))
    assert [file.name for file in files] == ["described-0-of-2.jsonl", "described-1-of-2.jsonl"]
    assert all(file.read_text() for file in files)
    assert set(journal(shop).values()) == {1}


def test_four_bits_describe(shop: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bitsandbytes")
    loaded = []

    def load(base: BaseModel, device: torch.device) -> Any:
        loaded.append(load_llava(base, device))
        return loaded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "load_llava", load)
        describe.main(arguments(shop, tiny, "--base.quantization=nf4"))
    assert loaded[0].model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    assert "13 images described" in capsys.readouterr().out


def test_killed_at_any_moment_nothing_is_lost_or_done_twice(shop: Path, tiny: Path) -> None:
    describe.main(arguments(shop, tiny, f"--output={shop / 'alone.json'}"))
    command = [sys.executable, "-m", "lavic", "describe", *arguments(shop, tiny, "--batch_size=1")]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ}
    )
    while not (shop / "items_described.json.journal").exists() or sum(journal_lines(shop)) < 4:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    [file] = (shop / "items_described.json.journal").rglob("*.jsonl")
    with file.open("a") as lines:
        lines.write('{"image": "SKU-7_1.jpg", "text": "cut o')  # what a kill within a write leaves
    assert not (shop / "items_described.json").exists()
    describe.main(arguments(shop, tiny, "--batch_size=1"))
    assert (shop / "items_described.json").read_text() == (shop / "alone.json").read_text()
    whole = [line for line in file.read_text().splitlines() if not line.endswith("cut o")]
    counted = Counter(json.loads(line)["image"] for line in whole if line and not json.loads(line)["fault"])
    assert set(counted.values()) == {1}
    assert len(counted) == 13


def journal_lines(shop: Path) -> list[int]:
    return [path.read_bytes().count(b"\n") for path in (shop / "items_described.json.journal").rglob("*.jsonl")]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--batch_size=0", "batch_size is 0"),
        ("--max_new_tokens=ten", "max_new_tokens"),
        ("--images_dir=nowhere", "images folder nowhere does not exist"),
        ("--metadata=nowhere.json", r"nowhere\.json does not exist"),
        ("--base.name=/nowhere", "model directory /nowhere does not exist"),
        ("--prompt=What is this?", "must hold {image} once"),
        ("--no_such_option=1", "no_such_option"),
    ],
)
def test_mistakes_are_named(option: str, message: str, shop: Path, tiny: Path) -> None:
    with pytest.raises(UserError, match=message):
        describe.main(arguments(shop, tiny, option))


def test_no_image_at_all_is_no_success(shop: Path, tiny: Path) -> None:
    for path in (shop / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="None of the 15 images"):
        describe.main(arguments(shop, tiny))


def texts_of(path: Path) -> dict[str, str]:
    return {
        image: text for meta in json.loads(path.read_text()).values() for image, text in meta.get(TEXTS, {}).items()
    }


def written_anew(shop: Path, before: Counter[str]) -> set[str]:
    """Of which images a line was added; those that have none are tried each time."""
    return {image for image in journal(shop) - before if image not in ("SKU-1_1.jpg", "SKU-2_0.jpg")}


def replace_file(shop: Path, tiny: Path) -> None:
    """Another photograph of the same size in bytes, with the old one's time."""
    path = shop / "images" / "SKU-5_0.jpg"
    stat, old = path.stat(), path.read_bytes()
    Image.new("RGB", (70, 70), "blue").save(path)
    assert path.stat().st_size < len(old)
    path.write_bytes(path.read_bytes().ljust(len(old), b"\0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def rename_item(shop: Path, tiny: Path) -> None:
    items = json.loads((shop / "items.json").read_text())
    items["SKU-6"]["title"] = "A bath towel"
    (shop / "items.json").write_text(json.dumps(items))


def insert_image(shop: Path, tiny: Path) -> None:
    """A new first image: what the others show moves on by one."""
    items = json.loads((shop / "items.json").read_text())
    items["SKU-7"]["images"].insert(0, {"large": "http://h/new"})
    (shop / "items.json").write_text(json.dumps(items))
    first, second, third = (shop / "images" / f"SKU-7_{i}.jpg" for i in range(3))
    second.rename(third)
    first.rename(second)
    Image.new("RGB", (90, 40), "green").save(first)


def change_weights(shop: Path, tiny: Path) -> None:
    """A few tensors in the middle of the file; its size stays."""
    tensors = load_file(tiny / "model.safetensors")
    names = [name for name in tensors if "multi_modal_projector" in name]
    assert names
    save_file({n: t + 1 if n in names else t for n, t in tensors.items()}, tiny / "model.safetensors", {"format": "pt"})


def change_generation(shop: Path, tiny: Path) -> None:
    path = tiny / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [2, 5]}))


EVERYTHING = {f"SKU-{n}_{i}.jpg" for n in range(8) for i in (0, 1)} - {"SKU-1_1.jpg", "SKU-2_0.jpg", "SKU-3_0.jpg"}


@pytest.mark.parametrize(
    ("change", "more", "anew"),
    [
        (None, [], set()),
        (replace_file, [], {"SKU-5_0.jpg"}),
        (rename_item, [], {"SKU-6_0.jpg", "SKU-6_1.jpg"}),
        (rename_item, ["--prompt=Look: {image} What is it?"], EVERYTHING),
        (insert_image, [], {"SKU-7_0.jpg"}),  # the other two have the bytes and the title that they had before
        (change_weights, [], EVERYTHING),
        (change_generation, [], EVERYTHING),
        (None, ["--max_new_tokens=5"], EVERYTHING),
        (None, ["--base.dtype=bfloat16"], EVERYTHING),
    ],
)
def test_a_text_is_kept_by_what_it_was_written_from(
    shop: Path, tiny: Path, tmp_path: Path, change: Any, more: list[str], anew: set[str]
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    describe.main(arguments(shop, model))
    before = journal(shop)
    if change is not None:
        change(shop, model)
    describe.main(arguments(shop, model, *more))
    assert written_anew(shop, before) == anew
    describe.main(arguments(shop, model, f"--output={shop / 'fresh.json'}", *more))
    assert texts_of(shop / "items_described.json") == texts_of(shop / "fresh.json")


def test_a_title_that_the_prompt_does_not_hold_changes_nothing(shop: Path, tiny: Path) -> None:
    more = ["--prompt=Look: {image} What is it?"]
    describe.main(arguments(shop, tiny, *more))
    before = journal(shop)
    rename_item(shop, tiny)
    describe.main(arguments(shop, tiny, *more))
    assert written_anew(shop, before) == set()


def test_a_model_that_was_moved_is_the_same(shop: Path, tiny: Path, tmp_path: Path) -> None:
    describe.main(arguments(shop, tiny))
    before = journal(shop)
    describe.main(arguments(shop, shutil.copytree(tiny, tmp_path / "elsewhere")))
    assert written_anew(shop, before) == set()


def test_a_journal_without_keys_is_not_believed_and_said_so(
    shop: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = shop / "items_described.json.journal" / "0123456789ab"
    old.mkdir(parents=True)
    (old / "described-0-of-1.jsonl").write_text('{"image": "SKU-0_0.jpg", "text": "Another.", "fault": ""}\n')
    with caplog.at_level("INFO", "lavic"):
        describe.main(arguments(shop, tiny))
    assert texts_of(shop / "items_described.json")["SKU-0_0.jpg"] != "Another."
    assert caplog.text.count("do not say what they were made from") == 1
    caplog.clear()
    describe.main(arguments(shop, tiny))
    assert "do not say" not in caplog.text


def test_withdrawn_images_are_not_described(shop: Path, tiny: Path) -> None:
    items = json.loads((shop / "items.json").read_text())
    items["SKU-4"]["images"].pop()
    (shop / "items.json").write_text(json.dumps(items))
    describe.main(arguments(shop, tiny))
    assert set(texts_of(shop / "items_described.json")) == EVERYTHING - {"SKU-4_1.jpg"} | {"SKU-3_0.jpg"}
