"""A projector that was trained alone: LaViC's own, LLaVA's `mm_projector.bin`, and what is neither."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavic.errors import UserError
from lavic.model.adapters.directory import save_adapter
from lavic.model.adapters.projector import start_from
from lavic.model.loading import BaseModel, Llava, load_llava
from lavic.model.parts import TrainableParts, place_adapters
from lavic.model.processor import load_processor

FULL = "full_parts.safetensors"
LAYERS = {"linear_1": "0", "linear_2": "2"}  # LLaVA's projector is a Sequential, with the activation between


def base(folder: Path) -> Llava:
    return load_llava(BaseModel(str(folder)), torch.device("cpu"))


def projector_of(llava: Llava) -> dict[str, Tensor]:
    return {name: p for name, p in llava.named_parameters() if ".multi_modal_projector." in name}


def trained(composed_toy: Path, folder: Path, parts: TrainableParts) -> Path:
    """An adapter's directory whose weights are random."""
    model = place_adapters(base(composed_toy), parts, str(composed_toy), entry="patch")
    for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    save_adapter(model, load_processor(str(composed_toy)), folder, "card", task="instruction")
    return folder


ALIGNED = TrainableParts(vision="frozen", projector="full", language="frozen")


def test_all_forms_give_the_same_projector_and_change_nothing_else(composed_toy: Path, tmp_path: Path) -> None:
    folder = trained(composed_toy, tmp_path / "aligned", ALIGNED)
    weights = load_file(folder / FULL)
    assert len(weights) == 4
    llavas = {}
    for name, value in weights.items():
        layer, kind = name.split(".")[-2:]
        llavas[f"model.mm_projector.{LAYERS[layer]}.{kind}"] = value
    torch.save(llavas, tmp_path / "mm_projector.bin")
    for path in (folder, folder / FULL, tmp_path / "mm_projector.bin"):
        llava, before = base(composed_toy), base(composed_toy).state_dict()
        start_from(llava, path)
        after = llava.state_dict()
        assert {name for name in after if not torch.equal(after[name], before[name])} == weights.keys()
        assert all(torch.equal(after[name], weights[name]) for name in weights)


class Code:
    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (Path("run"),))


def test_a_pickle_with_code_is_not_run(composed_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model.mm_projector.0.weight": Code()}, "mm_projector.bin")
    with pytest.raises(UserError, match=r"mm_projector\.bin cannot be read") as error:
        start_from(base(composed_toy), Path("mm_projector.bin"))
    assert not Path("run").exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere", "cannot be read"), ("cut.safetensors", "cannot be read"), ("cut.bin", "cannot be read"),
     ("list.bin", "no named tensors"), ("part.safetensors", r"lacks model\.multi_modal_projector\.linear_1\.bias"),
     ("wide.safetensors", r"made for another model: .*linear_2\.bias is \[7\], not \[128\]"),
     ("more.safetensors", "lm_head.weight, which is no projector's"),
     ("other.safetensors", "something, which is no projector's"),
     ("lora", "no projector that was trained alone"), ("empty", "no projector that was trained alone")],
)  # fmt: skip
def test_anything_else_is_one_sentence_and_changes_nothing(
    composed_toy: Path, tmp_path: Path, name: str, said: str
) -> None:
    weights = load_file(trained(composed_toy, tmp_path / "aligned", ALIGNED) / FULL)
    whole, path = (tmp_path / "aligned" / FULL).read_bytes(), tmp_path / name
    bias = next(name for name in weights if name.endswith("linear_2.bias"))
    if name.startswith("cut"):
        path.write_bytes(whole[: len(whole) // 2])
    elif name == "list.bin":
        torch.save(list(weights.values()), path)
    elif name == "lora":
        trained(composed_toy, path, TrainableParts(vision="frozen", projector="full", language="lora"))
    elif name == "empty":
        path.mkdir()
    elif name.endswith(".safetensors"):
        changed = {
            "part": {n: w for n, w in weights.items() if not n.endswith("linear_1.bias")},
            "wide": {**weights, bias: torch.zeros(7)},
            "more": {**weights, "lm_head.weight": torch.zeros(3)},
            "other": {**weights, "something": torch.zeros(3)},
        }[path.stem]
        save_file(changed, path)
    llava = base(composed_toy)
    before = {name: p.clone() for name, p in projector_of(llava).items()}
    with pytest.raises(UserError, match=said) as error:
        start_from(llava, path)
    assert "\n" not in str(error.value)
    assert all(torch.equal(p, before[name]) for name, p in projector_of(llava).items())
