"""LLaMA-Factory's instruction tuning of the same LLaVA, as its users start it: by one dictionary of arguments.

It wants older versions of transformers and PEFT than LaViC and lives in an environment of its own
(`python -m venv DIR && DIR/bin/pip install llamafactory`), whose Python is named on the command line of
`python -m benchmarks peers`. Nothing of LaViC is imported. Its template is written here with the same pieces, for the
tokens of a record to be the same; its defaults that would compute something else (activations computed again, the
projector frozen) are turned round.
"""

import json
from pathlib import Path
from typing import Any

import llamafactory.train.sft.workflow as workflow
from llamafactory.data.formatter import EmptyFormatter, StringFormatter
from llamafactory.data.mm_plugin import get_mm_plugin
from llamafactory.data.template import register_template
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback

from benchmarks.peers_options import Options, options
from benchmarks.peers_trainer import Timed, Turns
from benchmarks.turns import Clock

TARGETS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


def write_records(given: Options, folder: Path) -> None:
    """The records as LLaMA-Factory reads them: each with a list of its images."""
    records = json.loads(given.records.read_text(encoding="utf-8"))
    for record in records:
        record["images"] = [str(given.images / record["image"])] if "image" in record else []
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
    form = {
        "file_name": "records.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
    }
    (folder / "dataset_info.json").write_text(json.dumps({"peers": form}), encoding="utf-8")


def arguments(given: Options, folder: Path) -> dict[str, Any]:
    """LoRA on the language model and the projector in full, float32, everything in memory."""
    return {
        "stage": "sft", "do_train": True, "model_name_or_path": str(given.base), "template": "peers",
        "dataset": "peers", "dataset_dir": str(folder), "cutoff_len": 2048, "output_dir": str(folder / "out"),
        "finetuning_type": "lora", "lora_target": TARGETS, "additional_target": "multi_modal_projector",
        "lora_rank": given.rank, "lora_alpha": 2 * given.rank, "lora_dropout": given.dropout,
        "disable_gradient_checkpointing": True, "disable_shuffling": given.order == "sequential",
        "per_device_train_batch_size": given.batch, "max_steps": given.max_steps, "learning_rate": given.lr,
        "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0, "seed": given.seed,
        "dataloader_num_workers": 1, "dataloader_persistent_workers": True, "save_strategy": "no",
        "logging_steps": 10, "report_to": "none", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip


class Tell(Turns):
    """The clock, with the trainer that only its own call knows."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Waits for the first turn."""
        self.trainer = Noted.last
        super().on_train_begin(*args, **kwargs)


class Noted(Timed, workflow.CustomSeq2SeqTrainer):  # type: ignore[misc]
    """LLaMA-Factory's trainer, which notes its losses."""

    last: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        Noted.last = self


def main() -> None:
    """Trains in turns."""
    given = options()
    folder = given.records.parent / f"llama_factory_{given.order}"
    folder.mkdir()
    write_records(given, folder)
    register_template(
        name="peers",
        format_user=StringFormatter(slots=["[INST] {{content}} [/INST]"]),
        format_assistant=StringFormatter(slots=[" {{content}}", {"eos_token"}]),
        format_prefix=EmptyFormatter(slots=[{"bos_token"}]),
        mm_plugin=get_mm_plugin(name="llava", image_token="<image>"),
    )
    workflow.CustomSeq2SeqTrainer = Noted
    callbacks: list[TrainerCallback] = [Tell(Clock(given.steps))]
    run_exp(arguments(given, folder), callbacks)


if __name__ == "__main__":
    main()
