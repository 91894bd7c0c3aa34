"""A tiny LLaVA-v1.6 with LoRA as stage 1 places it, and ragged batches, for exact comparisons."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
)

VOCABULARY = 128
PLACEHOLDERS = [120, 121, 122, 123, 124]
PREFIX = [1, 5, 6, 7, 8, 9, 10, 11]
STAGE1_MODULES = r".*(vision_tower.*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)|projector\.linear_[12])"


class Batch(TypedDict):
    """(rows, tokens) each, int64."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def toy_llava(
    text: str = "mistral", attention: str = "sdpa", dropout: float = 0.0, seed: int = 0
) -> LlavaNextForConditionalGeneration:
    """Random weights, large enough for attention to matter; both LoRA factors random."""
    torch.manual_seed(seed)
    text_config = {"mistral": MistralConfig, "llama": LlamaConfig}[text]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
            attn_implementation=attention,
        ),
        text_config=text_config(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            attn_implementation=attention,
        ),
        image_token_index=119,
        attn_implementation=attention,
    )
    if text == "mistral":
        config.text_config.sliding_window = None
    llava = LlavaNextForConditionalGeneration(config)
    for parameter in llava.parameters():
        nn.init.normal_(parameter, std=0.2)
    llava.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=4, lora_dropout=dropout, target_modules=STAGE1_MODULES), llava)
    for parameter in lora_parameters(llava).values():
        nn.init.normal_(parameter, std=0.1)
    return llava.train()


def lora_parameters(llava: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in llava.named_parameters() if p.requires_grad}


def ragged_batch(
    titles: Sequence[int] = (4, 1, 7), targets: Sequence[int] = (9, 12, 5), prefix: Sequence[int] = PREFIX
) -> Batch:
    """Rows `prefix, title, 5 placeholders, 2 prompt tokens, target`, right-padded with 0."""
    generator = torch.Generator().manual_seed(7)
    rows, labels = [], []
    for title, target in zip(titles, targets, strict=True):
        words = torch.randint(12, 119, (title + 2 + target,), generator=generator).tolist()
        prompt = [*prefix, *words[:title], *PLACEHOLDERS, *words[title : title + 2]]
        rows.append(prompt + words[title + 2 :])
        labels.append([-100] * len(prompt) + words[title + 2 :])
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        "labels": torch.tensor([row + [-100] * (width - len(row)) for row in labels]),
    }


def each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with all of its tensors changed alike."""
    return {
        "input_ids": change(batch["input_ids"]),
        "attention_mask": change(batch["attention_mask"]),
        "labels": change(batch["labels"]),
    }


def images(rows: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(rows * 5, 3, 28, 28) standard normal."""
    return torch.randn(rows * 5, 3, 28, 28, generator=torch.Generator().manual_seed(3), dtype=dtype)


def visual_tokens(llava: Any, pixel_values: Tensor) -> Tensor:
    class_tokens = llava.model.vision_tower(pixel_values).last_hidden_state[:, 0]
    visual: Tensor = llava.model.multi_modal_projector(class_tokens)
    return visual


def plain_loss(llava: Any, batch: Batch, visual: Tensor) -> Tensor:
    """The whole sequence forward, all logits, one row and one token at a time where that is plainer."""
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    embeddings = llava.model.language_model.embed_tokens(ids).clone()
    place = 0
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            if ids[row, column].item() in PLACEHOLDERS:
                embeddings[row, column] = visual[place]
                place += 1
    hidden = llava.model.language_model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    log_probabilities = llava.lm_head(hidden).log_softmax(-1)
    loss = torch.zeros((), dtype=log_probabilities.dtype)
    for row, column in (labels != -100).nonzero().tolist():
        loss = loss - log_probabilities[row, column - 1, labels[row, column]]
    return loss
