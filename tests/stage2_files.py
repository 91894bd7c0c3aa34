"""What the tests of stage 2 share: images, conversations, and a stage-1 adapter that changes what it touches."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration

from lavic.model.adapters.directory import save_adapter
from lavic.model.parts import TrainableParts, place_adapters
from lavic.model.processor import load_processor

COLOURS = ("red", "blue", "green", "yellow", "black", "white")


@dataclass(frozen=True)
class Stage2Files:
    """Paths of everything that `configs/recommend.yaml` names."""

    folder: Path
    model: Path
    distilled: Path

    def options(self) -> list[str]:
        """The options that put these paths and a CPU's settings in the place of the YAML file's."""
        data = "--data.init_args."
        return [
            "--config=configs/recommend.yaml",
            f"--model.init_args.base.name={self.model}",
            f"--model.init_args.distilled={self.distilled}",
            f"{data}data_dir={self.folder}",
            f"{data}categories=[home,garden]",
            f"{data}metadata=[{self.folder / 'items.json'}]",
            f"{data}images_dirs=[{self.folder / 'images'}]",
            f"{data}item_store={self.folder / 'item_store'}",
            f"{data}num_workers=0",
        ]


def write_stage2_files(folder: Path, model: Path) -> Stage2Files:
    """24 items, two of them without an image and one with a broken one, and three splits of two categories.

    The last lines of a split miss their ground truth among the candidates, name two, or repeat one.
    """
    rng = random.Random(3)
    ids = [f"B{i:09d}" if i % 4 else f"{5_555_454_546 + i}" for i in range(24)]
    colours = {item: rng.choice(COLOURS) for item in ids}
    (folder / "images").mkdir(parents=True)
    for number, item in enumerate(ids[2:]):
        Image.new("RGB", (90 + 10 * number, 120), colours[item]).save(folder / "images" / f"{item}_0.jpg")
    (folder / "images" / f"{ids[5]}_0.jpg").write_bytes(b"no image")
    titles = {item: {"title": f"Kitchen towel number {number}"} for number, item in enumerate(ids)}
    (folder / "items.json").write_text(json.dumps(titles))
    for category in ("home", "garden"):
        (folder / category).mkdir()
        for split, count in (("train", 6), ("valid", 4), ("test", 6)):
            lines = []
            for number in range(count):
                candidates = rng.sample(ids, 10)
                truths = [rng.choice(candidates)]
                if number == count - 1:
                    truths = [next(item for item in ids if item not in candidates)]
                elif number == count - 2:
                    truths = [*rng.sample(candidates, 2), truths[0], truths[0]]
                wish = f"Something {colours[truths[0]]} please. " + "It is for my kitchen. " * (number % 4)
                context = f"<submission>{wish}</submission>\n<comment>And large?</comment>\n"
                line = {"context": context, "context_items": [], "gt": "Take it", "gt_items": truths}
                lines.append(line | {"candidates_st": candidates})
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / category / f"{split}.jsonl").write_text(text)
    return Stage2Files(folder, model, _distilled(folder / "distilled", model))


def _distilled(folder: Path, model: Path) -> Path:
    torch.manual_seed(5)
    llava = LlavaNextForConditionalGeneration.from_pretrained(model)
    adapted = place_adapters(llava, TrainableParts(), str(model))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    save_adapter(adapted, load_processor(str(model)), folder, "")
    return folder
