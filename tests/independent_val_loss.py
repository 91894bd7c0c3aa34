"""val_loss of a saved stage-1 adapter, computed again from its directory by plain transformers, PEFT and Pillow.

    python tests/independent_val_loss.py BASE ADAPTER VAL.jsonl IMAGES

prints `{"val_loss": ..., "tokens": ..., "samples": ...}`. Nothing of LaViC's code is imported or repeated: the prompt
is written out here, one sample at a time goes through one whole forward pass, and log-probabilities are taken token by
token. Samples that a run would leave out or shorten (missing images, over-long titles) must not be in the file.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

BEFORE = (
    "You are a helpful assistant.\n"
    "Given an Amazon product's title and its image, please provide a detailed, visually grounded description of the "
    "product that would help someone decide whether to purchase it. Focus on the product's appearance, features, and "
    "any other visually informative aspects. Do not mention the product's title in your answer. This product's title "
    "is: "
)
AFTER = "\n\nAssistant:"


def sample_loss(model: PeftModel, processor: Any, title: str, description: str, image: Path) -> tuple[Tensor, int]:
    """Sum of the losses of one sample's supervised tokens, in nats, and their number."""
    with Image.open(image) as opened:
        pixels = processor.image_processor(images=opened.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    marks = [f"<ItemImageEmb{number + 1}>" for number in range(len(pixels))]
    prompt = BEFORE + title.strip() + "\n" + "".join(marks) + AFTER
    tokens = processor.tokenizer(prompt + description.strip())
    ids = [*tokens["input_ids"], processor.tokenizer.eos_token_id]
    first = tokens.char_to_token(len(prompt))  # the token that holds the description's first letter ...
    if tokens.token_to_chars(first).start < len(prompt):  # ... but began before it
        first += 1

    llava = model.base_model.model
    visual = llava.model.multi_modal_projector(llava.model.vision_tower(pixels).last_hidden_state[:, 0, :])
    embeddings = llava.get_input_embeddings()(torch.tensor(ids)).clone()
    for row, mark in zip(visual, marks, strict=True):
        [place] = [i for i, token in enumerate(ids) if token == processor.tokenizer.convert_tokens_to_ids(mark)]
        embeddings[place] = row
    hidden = llava.model.language_model(inputs_embeds=embeddings.unsqueeze(0)).last_hidden_state[0]
    chances = llava.lm_head(hidden).double().log_softmax(-1)
    losses = [-chances[place - 1, ids[place]] for place in range(first, len(ids))]
    return torch.stack(losses).sum(), len(losses)


@torch.no_grad()
def main(base: str, adapter: str, metadata: str, images: str) -> None:
    processor = AutoProcessor.from_pretrained(adapter)
    model = PeftModel.from_pretrained(LlavaNextForConditionalGeneration.from_pretrained(base), adapter).eval()
    loss, tokens, samples = 0.0, 0, 0
    for line in Path(metadata).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        more, several = sample_loss(
            model,
            processor,
            entry["title"],
            entry["image_description_llava_cleaned"],
            Path(images) / entry["image_name"],
        )
        loss, tokens, samples = loss + float(more), tokens + several, samples + 1
    print(json.dumps({"val_loss": loss / tokens, "tokens": tokens, "samples": samples}))


if __name__ == "__main__":
    main(*sys.argv[1:])
