"""A LLaVA's instruction tuning as a careful user of transformers and PEFT writes it; nothing of LaViC is imported.

transformers' own `Trainer`, the processor's chat template with its mask of what the assistant says, a collator that
pads, images decoded and cut in the loader's worker. LoRA on every Linear of the language model and the projector in
full, LoRA on those of the vision tower and the projector (but for the tower's last layer, of which nothing is read), or
the projector alone. TRL's `SFTTrainer`, where it is installed, gets the same records, collator and model.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.peers_options import Options, options
from benchmarks.turns import Clock

VISION_LINEARS = r".*(vision_tower.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)|multi_modal_projector\.linear_[12])"
LANGUAGE_LINEARS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


class Collator:
    """Records of LLaVA's form -> the model's inputs."""

    def __init__(self, base: Path, images: Path) -> None:
        self.processor: Any = AutoProcessor.from_pretrained(base)
        self.processor.tokenizer.padding_side = "right"
        self.images = images

    def __call__(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """`input_ids`, `attention_mask`, `labels`, and `pixel_values` where there are images."""
        inputs = self.processor.apply_chat_template(
            [self.messages(record) for record in records], tokenize=True, return_dict=True, return_tensors="pt",
            return_assistant_tokens_mask=True, processor_kwargs={"padding": True},
        )  # fmt: skip
        said = torch.as_tensor(inputs.pop("assistant_masks")).bool()
        return {**inputs, "labels": inputs["input_ids"].masked_fill(~said, -100)}

    def messages(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """A record as transformers' chat templates read it."""
        turns = []
        for turn in record["conversations"]:
            parts: list[dict[str, Any]] = []
            if "<image>" in turn["value"]:
                parts.append({"type": "image", "image": Image.open(self.images / record["image"]).convert("RGB")})
            parts.append({"type": "text", "text": turn["value"].replace("<image>", "").strip()})
            turns.append({"role": "user" if turn["from"] == "human" else "assistant", "content": parts})
        return turns


class Timed:
    """Put before a trainer's class: notes each step's loss, unrounded."""

    loss = 0.0

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Every batch is a step: gradients are not accumulated."""
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.loss = float(loss)
        return loss


class Turns(TrainerCallback):  # type: ignore[misc]
    """A clock for transformers."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.trainer: Any = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Waits for the first turn."""
        self.clock.wait()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """A step has ended."""
        self.clock.step(self.trainer.loss)


def program_of(name: str) -> tuple[Any, Any, Any]:
    """A trainer that notes its losses, what makes its arguments, and what makes its data set of records."""
    if name == "Trainer":
        return type(name, (Timed, Trainer), {}), TrainingArguments, list
    import datasets
    import trl

    arguments = partial(  # its own defaults compute in bf16 and recompute activations
        trl.SFTConfig, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, bf16=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    return type(name, (Timed, trl.SFTTrainer), {}), arguments, datasets.Dataset.from_list


def model_of(given: Options) -> Any:
    """The checkpoint, with what is trained in it."""
    llava = AutoModelForImageTextToText.from_pretrained(given.base, dtype=torch.float32).requires_grad_(False)
    if given.way == "projector":
        llava.model.multi_modal_projector.requires_grad_(True)
        return llava
    lora = partial(LoraConfig, r=given.rank, lora_alpha=2 * given.rank, lora_dropout=given.dropout)
    torch.manual_seed(given.seed)
    if given.way == "vision":
        unread = f".*vision_tower.*layers.{llava.config.vision_config.num_hidden_layers - 1}[.].*"
        return get_peft_model(llava, lora(target_modules=VISION_LINEARS, exclude_modules=unread))
    return get_peft_model(llava, lora(target_modules=LANGUAGE_LINEARS, modules_to_save=["multi_modal_projector"]))


def main() -> None:
    """Trains in turns."""
    given = options()
    turns = Turns(Clock(given.steps))
    program, arguments_of, dataset_of = program_of(given.program)
    arguments = arguments_of(
        output_dir=str(given.records.parent / "theirs"), use_cpu=True, seed=given.seed,
        per_device_train_batch_size=given.batch, max_steps=given.max_steps, learning_rate=given.lr,
        lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, train_sampling_strategy=given.order,
        dataloader_num_workers=1, dataloader_persistent_workers=True, remove_unused_columns=False,
        save_strategy="no", logging_steps=10, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    records = json.loads(given.records.read_text(encoding="utf-8"))
    trainer = turns.trainer = program(
        model=model_of(given), args=arguments, train_dataset=dataset_of(records),
        data_collator=Collator(given.base, given.images), callbacks=[turns],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()


if __name__ == "__main__":
    main()
