"""Training of both stages, written out again in plain transformers, PEFT, Pillow and torch.

Nothing of LaViC's code is imported: every sample goes alone through one whole forward pass, log-probabilities are taken
token by token, and a step is one division, one backward pass, one clipping and one AdamW. All samples make one step.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from tests.independent_val_loss import sample_loss

MARKS = [f"<ItemImageEmb{number}>" for number in range(1, 6)]
HEAD = (
    "You are an AI assistant specialized in providing personalized product recommendations based on user "
    "conversations. You are given a conversation between a user seeking recommendation (denoted by <submission>) and "
    "other users providing comments (denoted by <comment>). You are also given a set of candidate products with their "
    'IDs, titles and images formatted as "ID: title" followed by an image. Among the candidates, recommend the most '
    "relevant product to the seeker. Only reply with its ID, and don't say anything else.\n\nConversation:\n"
)
SampleLoss = Callable[[], tuple[Tensor, int]]  # -> sum over the supervised tokens in nats, and their number


@dataclass(frozen=True)
class Trained:
    """What a run leaves: of each step the loss, the gradient's norm before clipping and the val_loss after it, and
    the weights at the end."""

    losses: list[float]
    norms: list[float]
    val_losses: list[float]
    start: dict[str, Tensor]
    weights: dict[str, Tensor]


def train(
    model: PeftModel, samples: list[SampleLoss], val: list[SampleLoss], steps: int, lr: float, decay: float, clip: float
) -> Trained:
    """`steps` steps, each over all samples."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=lr, weight_decay=decay)
    found = Trained([], [], [], start, {})
    for _ in range(steps):
        optimizer.zero_grad()
        loss = mean_loss(samples)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), clip)
        optimizer.step()
        found.losses.append(float(loss.detach()))
        found.norms.append(float(norm))
        with torch.no_grad():
            found.val_losses.append(float(mean_loss(val)))
    found.weights.update({name: p.detach().clone() for name, p in trained.items()})
    return found


def mean_loss(samples: list[SampleLoss]) -> Tensor:
    """The mean over all supervised tokens of all samples, in nats."""
    losses, tokens = zip(*(sample() for sample in samples), strict=True)
    mean: Tensor = torch.stack(losses).sum() / sum(tokens)
    return mean


def write_adapter(base: Path, folder: Path, modules: str, seed: int) -> None:
    """A LoRA adapter without dropout whose both factors are random, so that every weight has a gradient."""
    torch.manual_seed(seed)
    llava = LlavaNextForConditionalGeneration.from_pretrained(base)
    model = get_peft_model(llava, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=modules))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    model.save_pretrained(folder)


def processor_of(base: Path) -> Any:
    """The base's processor with the placeholders, cutting every image in a 2 x 2 grid and the whole."""
    processor = AutoProcessor.from_pretrained(base)
    processor.tokenizer.add_tokens(MARKS, special_tokens=True)
    processor.image_processor.image_grid_pinpoints = [[672, 672]]
    return processor


def train_distillation(
    base: Path, adapter: Path, data: Path, steps: int, lr: float, decay: float, clip: float
) -> Trained:
    """From a saved adapter on; `data` holds item2meta_train.json, item2meta_valid.jsonl and the two image folders."""
    model = PeftModel.from_pretrained(
        LlavaNextForConditionalGeneration.from_pretrained(base), str(adapter), is_trainable=True
    ).eval()
    processor = processor_of(base)
    train_samples: list[SampleLoss] = []
    for meta in json.loads((data / "item2meta_train.json").read_text()).values():
        for name, text in meta["image_descriptions_llava_cleaned"].items():
            image = data / "train_images" / name
            train_samples.append(partial(sample_loss, model, processor, meta["title"], text, image))
    val: list[SampleLoss] = []
    for line in (data / "item2meta_valid.jsonl").read_text().splitlines():
        meta = json.loads(line)
        image = data / "valid_images" / meta["image_name"]
        text = meta["image_description_llava_cleaned"]
        val.append(partial(sample_loss, model, processor, meta["title"], text, image))
    return train(model, train_samples, val, steps, lr, decay, clip)


def train_recommendation(
    base: Path, distilled: Path, adapter: Path, files: Path, category: str, steps: int, lr: float, decay: float,
    clip: float,
) -> Trained:  # fmt: skip
    """From a saved adapter on; `files` holds items.json, images/ and the category's folder. Every truth of a
    conversation must be among its candidates."""
    llava = LlavaNextForConditionalGeneration.from_pretrained(base)
    model = PeftModel.from_pretrained(llava, str(distilled), adapter_name="distilled").eval()
    processor = processor_of(base)
    shown = visual_tokens(model.base_model.model, processor, files / "images")
    model.load_adapter(str(adapter), adapter_name="recommendation", is_trainable=True)
    model.base_model.set_adapter(["distilled", "recommendation"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".recommendation." in name)
    titles = {item: meta["title"] for item, meta in json.loads((files / "items.json").read_text()).items()}

    def samples(split: str) -> list[SampleLoss]:
        made: list[SampleLoss] = []
        for line in (files / category / f"{split}.jsonl").read_text().splitlines():
            entry = json.loads(line)
            prompt, visual = choice_prompt(entry["context"], entry["candidates_st"], titles, shown)
            for truth in dict.fromkeys(entry["gt_items"]):
                made.append(partial(choice_loss, model.base_model.model, processor.tokenizer, prompt, visual, truth))
        return made

    return train(model, samples("train"), samples("valid"), steps, lr, decay, clip)


@torch.no_grad()
def visual_tokens(llava: Any, processor: Any, images: Path) -> dict[str, Tensor]:
    """Each item's five visual tokens, (5, D); the class tokens are kept in bfloat16. No entry without an image."""
    found = {}
    for path in images.iterdir():
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except OSError:
            continue
        pixels = processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        cls = llava.model.vision_tower(pixels).last_hidden_state[:, 0]
        found[path.name.rpartition("_")[0]] = llava.model.multi_modal_projector(cls.bfloat16().float())
    return found


def choice_prompt(
    context: str, candidates: list[str], titles: Mapping[str, str], shown: Mapping[str, Tensor]
) -> tuple[str, Tensor]:
    """The published prompt, and the visual tokens for its placeholders."""
    lines, visual = [], []
    for item in candidates:
        lines.append(f"{item}: {titles[item]}\n")
        if item in shown:
            lines.append("".join(MARKS) + "\n")
            visual.append(shown[item])
    return HEAD + context + "\n\nCandidates:\n" + "".join(lines) + "\nAssistant:", torch.cat(visual)


def choice_loss(llava: Any, tokenizer: Any, prompt: str, visual: Tensor, truth: str) -> tuple[Tensor, int]:
    """Sum of the losses of the truth's tokens and of the end-of-sequence token, and their number."""
    encoded = tokenizer(prompt + truth, return_offsets_mapping=True)
    ids = [*encoded["input_ids"], tokenizer.eos_token_id]
    first = next(i for i, (begin, end) in enumerate(encoded["offset_mapping"]) if begin >= len(prompt) and end > begin)
    embeddings = llava.get_input_embeddings()(torch.tensor(ids)).clone()
    marks = {tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
    places = [place for place, token in enumerate(ids) if token in marks]
    for place, row in zip(places, visual, strict=True):
        embeddings[place] = row
    hidden = llava.model.language_model(inputs_embeds=embeddings.unsqueeze(0)).last_hidden_state[0]
    chances = llava.lm_head(hidden).double().log_softmax(-1)
    return -torch.stack([chances[i - 1, ids[i]] for i in range(first, len(ids))]).sum(), len(ids) - first
