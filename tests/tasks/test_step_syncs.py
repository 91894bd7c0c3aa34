"""No training step makes the host wait for the device: every operation that reads a value on the host is refused.

A CPU never waits, but dispatches the same operations, except that `.tolist()` and `.cpu()` are none there. On a GPU
`tests/model/test_synchronisation.py` asks CUDA itself.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lavic.batching.padding import pad, pad_runs
from lavic.model.loading import BaseModel
from lavic.model.parts import TrainableParts
from lavic.tasks.base import Task
from lavic.tasks.distillation import Distillation
from lavic.tasks.instruction import Instruction
from lavic.tasks.recommendation import Recommendation
from lavic.tasks.vqa import Vqa
from lavic.tasks.vqa.encoding import QuestionEncoder
from lavic.tasks.vqa.prompt import Question
from lavic.training.guards import SkipNonFiniteSteps

WAITS = {
    "aten::_local_scalar_dense",  # .item(), float(), bool(), an `if` on a tensor
    "aten::equal",
    "aten::nonzero",  # and what finds out its own size: indexing by a mask
    "aten::masked_select",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::repeat_interleave",
    "aten::lift_fresh",  # torch.tensor(a list): a copy from memory that is not pinned
}


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what waits, but for as many reads of one number as are allowed."""

    def __init__(self, reads: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        masked = name in {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"} and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name == "aten::lift_fresh" and not args[0].numel():
            pass  # transformers' empty caches: nothing is copied
        elif name == "aten::_local_scalar_dense" and self.reads:
            self.reads -= 1
        elif masked or name in WAITS:
            raise AssertionError(f"a step waits in {name}")
        return func(*args, **(kwargs or {}))


def rows(task: Any, start: list[int], images: int) -> dict[str, Any]:
    """Three right-padded rows of `start`, words, each image's five placeholders, and a target, of unlike lengths."""
    generator = torch.Generator().manual_seed(0)
    sequences, targets = [], []
    for words, target in ((4, 9), (1, 12), (7, 5)):
        ids = torch.randint(5, 100, (words + target,), generator=generator).tolist()
        prompt = [*start, *ids[:words], *(task.placeholder_ids[:5] * images)]
        sequences.append(prompt + ids[words:])
        targets.append(len(prompt))
    return {**pad(sequences, targets, 0)}


def stage_1(tiny: Path, folder: Path) -> tuple[Task, dict[str, Any]]:
    task = Distillation(BaseModel(str(tiny)), TrainableParts())
    task.load_model(torch.device("cpu"))
    batch = rows(task, task.prefix.ids, 1)
    batch["views"] = torch.randint(0, 256, (15, *task.blank.shape[1:]), dtype=torch.uint8)
    return task, batch


def stage_2(tiny: Path, folder: Path) -> tuple[Task, dict[str, Any]]:
    task = Recommendation(BaseModel(str(tiny)), distilled=None)
    task.load_model(torch.device("cpu"))
    batch = rows(task, [1, 5, 6], 2)
    batch["cls_tokens"] = torch.randn(30, task.llava.config.vision_config.hidden_size)
    return task, batch


LANGUAGE = TrainableParts(vision="frozen", projector="full", language="lora")
SIZES = [(60, 50), (300, 90)]


def conversations(tiny: Path, folder: Path) -> tuple[Task, dict[str, Any]]:
    """Two images of unlike size, each with two supervised runs."""
    task = Instruction(BaseModel(str(tiny)), LANGUAGE)
    task.load_model(torch.device("cpu"))
    counts = [task.reader.count(*size) for size in SIZES]
    sequences = [[1, 7, *([task.reader.image_token_id] * count), *range(9, 30 + count % 7)] for count in counts]
    runs = [[(len(ids) - 9, len(ids) - 6), (len(ids) - 3, len(ids))] for ids in sequences]
    batch = pad_runs(sequences, runs, 0)
    views = torch.cat([task.reader.cut(Image.new("RGB", size, "red")) for size in SIZES])
    return task, {**batch, "views": views, "sizes": SIZES, "image_tokens": sum(counts)}


def text_alone(tiny: Path, folder: Path) -> tuple[Task, dict[str, Any]]:
    task, _ = conversations(tiny, folder)
    batch = pad_runs([list(range(9, 30)), list(range(9, 17))], [[(4, 9), (12, 21)], [(5, 8)]], 0)
    return task, {**batch, "sizes": [], "image_tokens": 0}


def questions(tiny: Path, folder: Path) -> tuple[Task, dict[str, Any]]:
    task = Vqa(BaseModel(str(tiny)), LANGUAGE)
    task.load_model(torch.device("cpu"))
    asked = [Question(0, "a.jpg", "which colour", "red", False), Question(1, "b.jpg", "what", "a large towel", False)]
    images = [Image.new("RGB", size, "red") for size in SIZES]
    encoder = QuestionEncoder(task.reader, "Answer.", 4096)
    return task, {**encoder.batch(asked, images, answers=True)}


@pytest.mark.parametrize("make", [stage_1, stage_2, conversations, text_alone, questions])
def test_a_step_waits_for_nothing_but_the_gradient_s_norm(
    make: Callable[[Path, Path], tuple[Task, dict[str, Any]]], tiny: Path, tmp_path: Path
) -> None:
    task, host = make(tiny, tmp_path)
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    batch = task.on_before_batch_transfer(host, 0)
    norms: list[float] = []
    task.log = lambda name, value, **_: norms.append(value)  # type: ignore[method-assign]
    guard: Any = SkipNonFiniteSteps()

    def step() -> None:
        torch.autograd.backward(task.loss_sum(batch))
        guard.on_before_optimizer_step(None, task, optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()  # computes what is kept over all steps
    allowed = NoWaiting(reads=1)  # `SkipNonFiniteSteps`: a step that would spoil the weights is to be left out
    with allowed:
        step()
    assert allowed.reads == 0
    assert len(norms) == 2
    assert norms[0] > 0


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.tensor([1.0]) + x,
        lambda x: x.index_put_((x > 0,), x.sum()),
        lambda x: x.repeat_interleave((x > 0).long()),
    ],
)
def test_each_kind_is_refused(wait: Callable[[Tensor], Any]) -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match="waits in"), NoWaiting():
        wait(x)
