"""A task that LaViC does not know, in one file: is an image `bright` or `dark`? LoRA on the projector learns it."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lavic.batching.padding import pad
from lavic.batching.step_plan import MicroBatch
from lavic.catalogue.images import open_image
from lavic.model.activation_checkpointing import ActivationCheckpointing
from lavic.model.loading import BaseModel
from lavic.model.loss import target_loss
from lavic.model.parts import Lora, TrainableParts, place_adapters
from lavic.model.processor import load_processor, placeholder_ids
from lavic.model.scoring import PromptState
from lavic.model.speedups import Speedups
from lavic.model.text import PLACEHOLDERS
from lavic.model.views import cut_views
from lavic.model.visual_tokens import Normalise, cls_tokens, project
from lavic.tasks.base import Task, TaskData
from lavic.training.card import CardParts
from lavic.training.protocols import VAL_LOSS, VAL_SAMPLES, Metric, TaskReport

WORDS = ("dark", "bright")
RIGHT = Metric("brightness_accuracy", "right words", form=".1%", better="higher")


class Brightness(Task):
    """Learns to say whether an image is bright."""

    report = TaskReport("brightness", "Bright or dark", (RIGHT, VAL_LOSS, VAL_SAMPLES), RIGHT.name)
    adapter_folder = "brightness_adapter_best"

    def __init__(self, base: BaseModel, lr: float = 0.01, weight_decay: float = 0.0, seed: int = 42) -> None:
        super().__init__(base, Speedups(), ActivationCheckpointing(), lr, weight_decay, seed=seed)

    def build(self, llava: Any) -> Any:
        parts = TrainableParts(vision="frozen", projector="lora", lora=Lora(dropout=0.0))
        return place_adapters(llava, parts, self.base.name, self.seed)

    def load_model(self, device: torch.device) -> None:
        super().load_model(device)
        self.normalise, self.marks = Normalise(self.processor.image_processor), placeholder_ids(self.processor)

    def visual(self, views: Tensor) -> Tensor:
        return project(self.llava, cls_tokens(self.llava, self.normalise(views, self.llava.dtype)))

    def loss_sum(self, batch: dict[str, Any]) -> Tensor:
        prompt = (batch["input_ids"], batch["attention_mask"], batch["labels"])
        return target_loss(self.llava, *prompt, self.visual(batch["views"]), self.marks)

    def on_validation_epoch_start(self) -> None:
        self.start_sums(("loss", "right", "tokens", "samples"))

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        start, words, targets = batch["prompt_length"], batch["words"], batch["targets"]
        prompts = (batch["input_ids"][:, :start], batch["attention_mask"][:, :start])
        state = PromptState(self.llava, *prompts, self.visual(batch["views"]), self.marks)
        for scores, target in zip(state.scores([words] * len(targets), [0] * len(targets)), targets, strict=True):
            if not batch["ghost"]:
                self.add(loss=-scores[target], right=scores.argmax() == target, tokens=len(words[target]), samples=1)

    def on_validation_epoch_end(self) -> None:
        sums = self.total_sums()
        self.log_dict({"val_loss": sums["loss"] / sums["tokens"], RIGHT.name: sums["right"] / sums["samples"]})
        self.log("val_samples", sums["samples"])

    def card_parts(self, data: Any) -> CardParts:
        return CardParts("LoRA on the projector.", "", str(data.images_dir), "from peft import PeftModel")


class BrightnessData(TaskData):  # of the images in the folders `train` and `val`
    def __init__(self, images_dir: Path, batch_size: int = 1, model_name: str = "", seed: int = 42) -> None:
        super().__init__(batch_size, None, 0, False, model_name, seed)
        self.images_dir = Path(images_dir)

    def setup(self, stage: str) -> None:
        self.processor = load_processor(self.model_name)
        self.images: dict[str, list[tuple[Path, int]]] = {"train": [], "val": []}
        for split, images in self.images.items():
            for path in sorted((self.images_dir / split).iterdir()):
                images.append((path, int(np.asarray(open_image(path)).mean() > 127)))
            self.sample_counts[split] = len(images)
        tokens, end = self.processor.tokenizer, self.processor.tokenizer.eos_token_id
        self.prompt = tokens("".join(PLACEHOLDERS) + "\nAssistant:")["input_ids"]
        self.words = [[*tokens(word, add_special_tokens=False)["input_ids"], end] for word in WORDS]
        self.announce()

    def lengths(self, split: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        targets = np.array([len(self.words[word]) for _, word in self.images[split]], dtype=np.int64)
        return targets + len(self.prompt), targets

    def fingerprint(self) -> str:
        return sha256(repr(self.images["train"]).encode()).hexdigest()

    def dataset(self, split: str) -> Dataset[Any]:
        return Batches(self, split)


class Batches(Dataset[dict[str, Any]]):
    """Micro-batches: what training needs, and beside it what validation compares."""

    def __init__(self, data: BrightnessData, split: str) -> None:
        self.data, self.images = data, data.images[split]

    def __getitem__(self, batch: MicroBatch) -> dict[str, Any]:
        paths, targets = zip(*(self.images[i] for i in batch.indices), strict=True)
        start = len(self.data.prompt)
        sequences = [self.data.prompt + self.data.words[target] for target in targets]
        made: dict[str, Any] = {**pad(sequences, [start] * len(targets), 0, batch.ghost)}
        made["views"] = torch.cat([cut_views(self.data.processor.image_processor, open_image(path)) for path in paths])
        made |= {"step_targets": batch.step_targets, "rows": batch.indices, "ghost": batch.ghost}
        return made | {"prompt_length": start, "words": self.data.words, "targets": targets}
