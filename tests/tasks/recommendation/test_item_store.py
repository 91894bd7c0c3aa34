"""The item store: what is computed, when it is computed again, and when it may be used."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavic.catalogue.images import BrokenImage
from lavic.catalogue.items import Item
from lavic.errors import UserError
from lavic.tasks.recommendation.item_store import ItemStore, build_item_store, store_folder, store_identity

WIDTH = 8
IDENTITY = {"model": "m", "adapter": "a", "views": "anyres"}


def cut(image: Path) -> Tensor:
    """As many views as the file's first byte says; every pixel is the second byte."""
    content = image.read_bytes()
    if content == b"broken":
        raise BrokenImage("image broken")
    return torch.full((content[0], 3, 2, 2), content[1], dtype=torch.uint8)


class Embed:
    def __init__(self) -> None:
        self.views = 0

    def __call__(self, views: Tensor) -> Tensor:
        self.views += len(views)
        return views[:, 0, 0, :1].float() + torch.arange(WIDTH)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    contents = {"A": bytes([5, 10]), "B": bytes([3, 20]), "C": b"broken", "D": bytes([5, 30]), "E": None}
    items = []
    for name, content in contents.items():
        if content is not None:
            (tmp_path / f"{name}_0.jpg").write_bytes(content)
        items.append(Item(name, name, tmp_path / f"{name}_0.jpg" if content is not None else None))
    return items


Build = Callable[..., tuple[Embed, dict[str, str]]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def build(items: list[Item], **options: int) -> tuple[Embed, dict[str, str]]:
        embed = Embed()
        return embed, build_item_store(tmp_path / "store", IDENTITY, items, cut, embed, WIDTH, **options)

    return build


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"workers": 1}])
def test_every_image_has_its_tokens(items: list[Item], build: Build, tmp_path: Path, options: dict[str, int]) -> None:
    embed, faults = build(items, **options)
    assert faults == {"C": "image broken"}
    assert embed.views == 13
    store = ItemStore.open(tmp_path / "store", IDENTITY, items)
    assert [store.views(item.id) for item in items] == [5, 3, 0, 5, 0]
    for opened in (store, pickle.loads(pickle.dumps(store))):
        tokens = opened.cls_tokens(["D", "E", "B", "C", "unknown"])
        assert tokens.dtype == torch.bfloat16
        expected = torch.tensor([30.0] * 5 + [20.0] * 3)[:, None] + torch.arange(WIDTH)
        assert torch.equal(tokens.float(), expected)


def test_nothing_is_computed_twice_until_a_image_changes(items: list[Item], build: Build, tmp_path: Path) -> None:
    build(items)
    assert build(items)[0].views == 0
    assert build(items)[1] == {"C": "image broken"}
    (tmp_path / "B_0.jpg").write_bytes(bytes([4, 21]))
    os.utime(tmp_path / "A_0.jpg", (1, 1))  # touched, but the same
    with pytest.raises(UserError, match=r"lacks 1 items or has them from older images \(first: B\)"):
        ItemStore.open(tmp_path / "store", IDENTITY, items)
    (tmp_path / "F_0.jpg").write_bytes(bytes([5, 40]))
    items.insert(0, Item("F", "F", tmp_path / "F_0.jpg"))
    assert build(items)[0].views == 4 + 5
    tokens = ItemStore.open(tmp_path / "store", IDENTITY, items).cls_tokens(["B", "F", "A"])
    assert tokens[:, 0].tolist() == [21] * 4 + [40] * 5 + [10] * 5


def test_an_image_that_bears_the_time_of_the_one_before_is_seen(
    items: list[Item], build: Build, tmp_path: Path
) -> None:
    """As a copy that keeps times leaves it: as many bytes, the same time."""
    build(items)
    path = tmp_path / "A_0.jpg"
    stat = path.stat()
    path.write_bytes(bytes([5, 11]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(UserError, match="lacks 1 items or has them from older images"):
        ItemStore.open(tmp_path / "store", IDENTITY, items)
    assert build(items)[0].views == 5
    assert ItemStore.open(tmp_path / "store", IDENTITY, items).cls_tokens(["A"])[0, 0] == 11


@pytest.mark.parametrize("file", ["processor_config.json", "config.json", "model.safetensors"])
def test_the_identity_sees_what_makes_other_tokens(file: str, tiny: Path, tmp_path: Path) -> None:
    """How images are scaled, and a projector in the middle of a file whose size and ends stay."""
    model = shutil.copytree(tiny, tmp_path / "model")
    assert store_identity(str(model), None, "five") == store_identity(str(tiny), None, "five")
    if file == "model.safetensors":
        tensors = load_file(model / file)
        tensors = {name: value + 1 if "projector" in name else value for name, value in tensors.items()}
        save_file(tensors, model / file, {"format": "pt"})
    else:
        (model / file).write_text((model / file).read_text().replace("336", "224"))
    assert store_identity(str(model), None, "five") != store_identity(str(tiny), None, "five")


def test_shards_fill_one_store(items: list[Item], build: Build, tmp_path: Path) -> None:
    first, _ = build(items, shard=0, shards=2)
    with pytest.raises(UserError, match="lacks 2 items"):
        ItemStore.open(tmp_path / "store", IDENTITY, items)
    second, _ = build(items, shard=1, shards=2)
    assert first.views + second.views == 13
    assert ItemStore.open(tmp_path / "store", IDENTITY, items).cls_tokens(["A", "D"])[:, 0].tolist() == [
        *[10] * 5,
        *[30] * 5,
    ]


def test_a_killed_run_goes_on_where_it_was(items: list[Item], build: Build, tmp_path: Path) -> None:
    class KilledError(Exception): ...

    class DiesAtTheSecond(Embed):
        def __call__(self, views: Tensor) -> Tensor:
            if self.views:
                raise KilledError
            return super().__call__(views)

    with pytest.raises(KilledError):
        build_item_store(tmp_path / "store", IDENTITY, items, cut, DiesAtTheSecond(), WIDTH, batch_size=1)
    journal = next(store_folder(tmp_path / "store", IDENTITY).glob("done-*.jsonl"))
    with journal.open("a") as lines:
        lines.write('{"item": "B", "row"')  # cut off in the middle of a line
    assert build(items)[0].views == 3 + 5
    assert len(ItemStore.open(tmp_path / "store", IDENTITY, items).cls_tokens(["A", "B", "D"])) == 13


def test_another_adapter_is_another_store(items: list[Item], build: Build, tmp_path: Path) -> None:
    build(items)
    other = IDENTITY | {"adapter": "b"}
    with pytest.raises(UserError, match=r"no item store for this model and adapter.*python -m lavic embed"):
        ItemStore.open(tmp_path / "store", other, items)


def test_the_identity_follows_contents_not_paths(tmp_path: Path) -> None:
    def write(folder: Path, weights: bytes) -> Path:
        folder.mkdir()
        for name in ("config.json", "adapter_config.json"):
            (folder / name).write_text(json.dumps({"r": 8}))
        for name in ("model.safetensors", "adapter_model.safetensors"):
            header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
            (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + weights)
        return folder

    one, same, other = (write(tmp_path / n, w) for n, w in (("a", b"1"), ("b", b"1"), ("c", b"2")))
    identity = store_identity(str(one), one, "five")
    assert identity == store_identity(str(same), same, "five")
    assert identity["adapter"] != store_identity(str(one), other, "five")["adapter"] != "none"
    assert identity["model"] != store_identity(str(other), one, "five")["model"]
    assert store_identity("owner/name", None, "five") == {
        "model": "owner/name",
        "adapter": "none",
        "views": "five",
        "decoding": "2",
    }
    with pytest.raises(UserError, match=r"no adapter_config\.json in it"):
        store_identity("owner/name", tmp_path, "five")


def test_the_store_of_80_000_items_is_under_1_gb(tmp_path: Path) -> None:
    items = [Item(f"B{i:09d}", "", None) for i in range(80_000)]
    build_item_store(tmp_path, IDENTITY, items, cut, Embed(), width=1024)
    assert sum(f.stat().st_size for f in store_folder(tmp_path, IDENTITY).iterdir()) < 1e9
