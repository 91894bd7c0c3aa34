"""`./run_training.sh --demo --task instruct`: a LLaVA from its parts, through its two stages, to a plain checkpoint.

Asked about images that it has not seen, the tuned model must answer more questions right than when it is shown another
image; and plain transformers must say the same as `python -m lavic predict`.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from lavic.catalogue.images import open_image
from lavic.demo.image_talks import ASKED, write_talks
from lavic.demo.questions import drawn
from lavic.demo.toy_parts import build_clip, build_llama
from lavic.demo.training_runs import Run, fit, rows, validation_table, validations
from lavic.errors import UserError
from lavic.evaluation.intervals import Interval, intervals
from lavic.files.json_entries import read_json

ADAPTER = "instruction_adapter_best"
ASKINGS = {"questions": "with the image", "shuffled": "with another image"}  # a file of questions, and how it is told
AGAIN = 10  # questions that plain transformers is asked too

Record = dict[str, Any]


def demonstrate(folder: Path, seed: int, passed_on: Sequence[str], run: Run, console: Console) -> None:
    """Makes the parts and the conversations, and trains, asks and exports by the commands that a user types.

    Args:
        folder: of everything that the demo makes.
        seed: of the toy's parts and of training.
        passed_on: further flags of the second stage's `python -m lavic fit`.
        run: runs `python -m MODULE ARGUMENTS...`.
        console: takes what is shown.

    Raises:
        UserError: a step failed, or what it left shows no learning.
    """
    started, output = time.monotonic(), folder / "instruct"
    data, composed, tuned, exported = (output / name for name in ("data", "composed", "tuned", "exported"))
    for made in (composed, exported):  # of an earlier demo; neither command writes over a checkpoint
        shutil.rmtree(made, ignore_errors=True)
    console.print("\n[bold]Captions of drawn images, conversations about them, and some about none[/]")
    seen = write_talks(data)["train"]
    console.print("\n[bold]A toy CLIP that has seen drawn images, and a toy Llama that has read texts[/]")
    transformers_logging.disable_progress_bar()
    build_clip(output / "clip", [drawn(*one) for one in seen], [image.look for _, image in seen], seed)
    build_llama(output / "llama", seen, seed)
    console.print("\n[bold]The two as one LLaVA, with a new projector between them[/]")
    run("lavic", "compose", "--vision", output / "clip", "--language", output / "llama", "--out", composed,
        "--seed", seed)  # fmt: skip
    console.print("\n[bold]First stage: the projector alone learns from captions[/]")
    shared = ["--seed_everything", 42 + seed, "--model.init_args.base.name", composed,
              "--data.init_args.images_dir", data / "Images"]  # fmt: skip
    aligning = fit(
        run, "--config", "configs/align.yaml", "--config", "configs/demo_align.yaml", *shared,
        "--data.init_args.train_data", data / "captions.json", "--data.init_args.val_data", data / "captions_val.json",
        "--trainer.default_root_dir", output / "aligned",
    )  # fmt: skip
    show_validations("First stage", validations(aligning), console)
    console.print("\n[bold]Second stage: projector and LoRA learn from conversations of several turns[/]")
    options = [
        "--config", "configs/instruct.yaml", "--config", "configs/demo_instruct.yaml", *shared,
        "--model.init_args.projector", output / "aligned" / ADAPTER,
        "--data.init_args.train_data", data / "train.json", "--data.init_args.val_data", data / "val.json",
    ]  # fmt: skip
    tuning = fit(run, *options, "--trainer.default_root_dir", tuned, *passed_on)
    show_validations("Second stage", validations(tuning), console)
    console.print("\n[bold]Questions about images that it has not seen, and the same questions about others of them[/]")
    for asking in ASKINGS:
        run("lavic", "predict", *options, "--model.init_args.adapter", tuned / ADAPTER,
            "--data.init_args.questions", data / f"{asking}.json",
            "--trainer.default_root_dir", output / asking)  # fmt: skip
    show_answers(output, console)
    console.print("\n[bold]A checkpoint for whatever serves LLaVAs[/]")
    run("lavic", "export", "--adapter", tuned / ADAPTER, "--out", exported)
    show_plain_answers(output, console)
    console.print(
        f"The adapter: {tuned / ADAPTER}; the plain checkpoint: {exported} (each has a README.md)\n"
        "Your own conversations: docs/instruct.md, python -m lavic fit --config configs/instruct.yaml\n"
        f"{time.monotonic() - started:.0f} s in all."
    )


def show_validations(stage: str, events: Sequence[dict[str, Any]], console: Console) -> None:
    """A stage's validations as a table.

    Raises:
        UserError: it ended without having learned to look.
    """
    console.print(validation_table(f"{stage}, demo", events))
    gain = events[-1]["visual_gain"]
    if not gain > 0:
        raise UserError(
            f"The demo's {stage.lower()} did not learn to look: visual_gain is {gain:.3f} nats a token; try another"
            " --seed."
        )


def show_answers(output: Path, console: Console) -> None:
    """How many held-out questions are answered exactly right, beside the same of other images; and a few of them.

    Raises:
        UserError: the control is not clearly below the model.
    """
    asked = {record["id"]: record for record in read_json(output / "data" / "questions.json")}
    answers = {asking: {row["id"]: row for row in rows(output / asking / "predictions.jsonl")} for asking in ASKINGS}
    table = Table("", "questions", "exactly right", "share", "95% interval", title="Held-out images, demo")
    found: dict[str, Interval] = {}
    for asking, told in ASKINGS.items():
        right = {name: row["generated"] == row["answer"] for name, row in answers[asking].items()}
        for turn in (None, *ASKED):
            some = [name for name in asked if turn in (None, _turns(asked[name]))]
            hits = np.array([right[name] for name in some], dtype=np.float64)
            clusters = [asked[name]["image"] for name in some]
            share = intervals({"right": (hits, np.ones(len(hits)))}, clusters)["right"]
            label = told if turn is None else f"  as question {turn}"
            table.add_row(label, str(len(some)), f"{hits.sum():.0f}", f"{share.value:.3f}",
                          f"{share.low:.3f} to {share.high:.3f}")  # fmt: skip
            if turn is None:
                found[asking] = share
    console.print(table)
    for name in [name for name in asked if _turns(asked[name]) == max(ASKED)][:3]:
        console.print(asked[name]["image"], style="bold")
        *before, _ = asked[name]["conversations"]
        for turn in before:
            speaker = "asked" if turn["from"] == "human" else "told"
            console.print(f"  {speaker:<9} {_text(turn)}", markup=False)
        answer = answers["questions"][name]
        console.print(f"  {'generated':<9} {answer['generated']}  (right: {answer['answer']})", markup=False)
    if not found["questions"].low > found["shuffled"].high:
        raise UserError(
            f"The demo's model answers {found['questions'].value:.3f} of the questions right and, with another image,"
            f" {found['shuffled'].value:.3f}, which is not clearly worse; train longer by --trainer.max_epochs, or try"
            " another --seed."
        )
    console.print("With the right image more answers are right than with another, and the intervals do not overlap.")


def show_plain_answers(output: Path, console: Console) -> None:
    """The same questions to the exported checkpoint, by transformers alone.

    Raises:
        UserError: more than one in ten is answered otherwise; rounding to 16 bits may turn one.
    """
    asked = [record for record in read_json(output / "data" / "questions.json") if _turns(record) == max(ASKED)][:AGAIN]
    wanted = {row["id"]: row["generated"] for row in rows(output / "questions" / "predictions.jsonl")}
    said = plain_answers(output / "exported", asked, output / "data" / "Images")
    same = sum(answer == wanted[record["id"]] for answer, record in zip(said, asked, strict=True))
    told = f"transformers alone, asked {len(asked)} of them, gives {same} times the same answer; the first: {said[0]}"
    if same < 0.9 * len(asked):
        raise UserError(f"{output / 'exported'} is not the model that was tuned: {told}; report it with the log.")
    console.print(f"The exported checkpoint: {told}", markup=False)


def plain_answers(checkpoint: Path, asked: Sequence[Record], images_dir: Path) -> list[str]:
    """What transformers generates greedily after each record's last question, one at a time."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    said = []
    for record in asked:
        messages = [_message(turn) for turn in record["conversations"][:-1]]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(images=open_image(images_dir / record["image"]), text=text, return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs.to(dtype=model.dtype), max_new_tokens=8, do_sample=False)
        said.append(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return said


def _message(turn: dict[str, str]) -> dict[str, Any]:
    content: list[dict[str, str]] = [{"type": "text", "text": _text(turn)}]
    if _text(turn) != turn["value"]:
        content.insert(0, {"type": "image"})
    return {"role": "user" if turn["from"] == "human" else "assistant", "content": content}


def _text(turn: dict[str, str]) -> str:
    return turn["value"].removeprefix("<image>\n")


def _turns(record: Record) -> int:
    """Questions of a record."""
    return len(record["conversations"]) // 2
