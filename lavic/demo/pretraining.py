"""Pretrains the toy LLaVA-v1.6 on a CPU in about two minutes, in the order in which the real one was made.

1. The vision tower's class token learns what an image shows. CLIP learns it from captions, the toy from labels.
2. The language model and the projector learn to describe a product from *patch* features of the layer before the
   last, which is what LLaVA reads. To keep this short the toy reads their mean over each view, five tokens in all,
   where the real one reads all 2,885.
3. It goes on describing, and learns to choose among products by their looks; see `choosing.py`.

So the language model has never read a class token, which is what stage 1 teaches the tower and the projector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlavaNextForConditionalGeneration, LlavaNextProcessor

from lavic.batching.padding import IGNORED, pad
from lavic.demo.choosing import Choices, ChoosingLoss, naming_loss
from lavic.demo.drawing import draw
from lavic.demo.products import ACCENTS, BACKGROUNDS, COLOURS, FORMS, PATTERNS, Look, Photograph, Product, describe
from lavic.model.loss import target_loss
from lavic.model.processor import placeholder_ids
from lavic.model.text import distillation_prompt, encode
from lavic.model.views import cut_views
from lavic.model.visual_tokens import Normalise, project

Shown = tuple[Product, Photograph]

FITTED = 60  # images to which a patch embedding is fitted
TOWER_STEPS, TOWER_BATCH = 400, 48
DESCRIBE_STEPS, CHOOSE_STEPS = 120, 380
DESCRIBE_BATCH, NAME_BATCH = 16, 48
LEARNING_RATE = 3e-3
FULL_PROMPT_SHARE = 0.2


def embed_patches(
    llava: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, shown: Sequence[Shown]
) -> Tensor:
    """Draws and cuts the images, sets the patch embedding, and applies it: (P, 5, patches of a view, width).

    The patch embedding becomes the main components of the first images' patches, less uneven in scale, and is
    not trained further: nearly all the tower's cost at this size is in it, and so it is paid once an image.
    """
    normalise = Normalise(processor.image_processor)
    convolution = llava.model.vision_tower.embeddings.patch_embedding

    def pixels(item: Shown) -> Tensor:
        product, image = item
        drawn = draw(image.look, product.kind.noun, image.name)
        normalised: Tensor = normalise(cut_views(processor.image_processor, drawn), torch.float32)
        return normalised

    with ThreadPoolExecutor(2) as pool, torch.no_grad():
        fit_patch_embedding(convolution, torch.cat(list(pool.map(pixels, shown[:FITTED]))))
        return torch.stack([convolution(p).flatten(2).transpose(1, 2) for p in pool.map(pixels, shown)])


@torch.no_grad()
def embed_pixels(tower: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """Sets a tower's patch embedding, and applies it to P images: (P, 3, S, S), normalised, to (P, patches, width)."""
    embedding = tower.embeddings.patch_embedding
    fit_patch_embedding(embedding, pixels[:FITTED])
    embedded: Tensor = embedding(pixels).flatten(2).transpose(1, 2)
    return embedded


@torch.no_grad()
def fit_patch_embedding(convolution: nn.Conv2d, pixels: Tensor) -> None:
    """Makes a patch embedding the main components of patches, less uneven in scale.

    Args:
        convolution: of the vision tower; as many components as it has channels.
        pixels: (V, 3, S, S), normalised views.
    """
    width, _, side, _ = convolution.weight.shape
    patches = nn.functional.unfold(pixels, kernel_size=side, stride=side).transpose(1, 2).flatten(0, 1)
    _, strengths, components = torch.pca_lowrank(patches, q=width)
    weight = (components / (strengths / len(patches) ** 0.5).sqrt()).T
    weight = weight / (patches[:1000] @ weight.T).std()
    convolution.weight.copy_(weight.view_as(convolution.weight))


def train_tower(tower: CLIPVisionModel, patches: Tensor, looks: Sequence[Look], steps: int = TOWER_STEPS) -> None:
    """Trains the tower above its patch embedding: the class token of any view tells the product's look.

    Args:
        tower: CLIP's.
        patches: (P, V, patches of a view, width), from `embed_patches`, the whole image first.
        looks: P looks; the labels.
        steps: of the optimizer.
    """
    tower.embeddings.patch_embedding.requires_grad_(False)
    classes = [COLOURS, PATTERNS, ("", *ACCENTS), FORMS, tuple(BACKGROUNDS)]
    labels = torch.tensor([_labels(look, classes) for look in looks])
    heads = nn.ModuleList(nn.Linear(tower.config.hidden_size, len(names)) for names in classes)
    parameters = [*(p for p in tower.parameters() if p.requires_grad), *heads.parameters()]
    for optimizer in optimizer_steps(parameters, steps):
        picked = torch.randint(len(patches), (TOWER_BATCH,))
        view = torch.zeros(TOWER_BATCH, dtype=torch.int64)
        if patches.shape[1] > 1:  # every second view is the whole image, the others are quarters of it
            view = torch.randint(1, patches.shape[1], (TOWER_BATCH,)) * torch.randint(0, 2, (TOWER_BATCH,))
        seen = tower.post_layernorm(run_tower(tower, patches[picked, view])[-1][:, 0])
        losses = [nn.functional.cross_entropy(head(seen), labels[picked, index]) for index, head in enumerate(heads)]
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum())
        optimizer.step()


def mean_patch_features(llava: LlavaNextForConditionalGeneration, patches: Tensor) -> Tensor:
    """What stands for LLaVA's image tokens here: the mean patch of each view one layer before the last.

    Args:
        llava: the model.
        patches: (P, 5, patches of a view, width), from `embed_patches`.

    Returns:
        (P, 5, width).
    """
    with torch.no_grad():
        means = [run_tower(llava.model.vision_tower, five)[-2][:, 1:].mean(1) for five in patches]
    return torch.stack(means)


def begin_language(language: Any, head: nn.Linear, *others: nn.Module) -> None:
    """Draws a language model's first weights so that comparing and copying are near at hand.

    Tokens are read and written by the same vectors. Attention first looks for what resembles the token that looks; in
    the last layer it first writes what it reads instead. From the usual weights a model of this size needs many times
    the steps to find an item by its look.

    Args:
        language: Llama's or Mistral's layers over `embed_tokens`.
        head: of its output.
        others: what is drawn with it, such as a projector.
    """
    with torch.no_grad():
        for part in (*others, language):
            for parameter in part.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0, language.config.hidden_size**-0.5)
        head.weight.copy_(language.embed_tokens.weight)
        for layer in language.layers:
            attention = layer.self_attn
            shape = (-1, attention.head_dim)  # a key and value head serves several query heads
            keys, values = (part.weight.unflatten(0, shape) for part in (attention.k_proj, attention.v_proj))
            queries = keys.repeat_interleave(attention.num_key_value_groups, dim=0).flatten(0, 1)
            outputs = values.repeat_interleave(attention.num_key_value_groups, dim=0).flatten(0, 1)
            if layer is language.layers[-1]:
                attention.o_proj.weight.copy_(outputs.T)
            else:
                attention.q_proj.weight.copy_(queries)


def train_language(
    llava: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    shown: Sequence[Shown],
    features: Tensor,
    seed: int,
) -> None:
    """Trains the language model and the projector to describe `shown`, and to choose among them; the tower is frozen.

    Args:
        llava: the model, after `begin_language`.
        processor: with the placeholders.
        shown: P images with their products.
        features: (P, 5, width), from `mean_patch_features`.
        seed: of the order.
    """
    rng = Random(f"language {seed}")
    choosing = ChoosingLoss(llava, processor, Choices(shown, rng), features)
    parts = (llava.model.multi_modal_projector, llava.model.language_model, llava.lm_head, choosing)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    steps = DESCRIBE_STEPS + CHOOSE_STEPS
    for step, optimizer in enumerate(optimizer_steps(parameters, steps)):
        picked = rng.sample(range(len(shown)), DESCRIBE_BATCH)
        some = [shown[index] for index in picked]
        whole = step >= (1 - FULL_PROMPT_SHARE) * steps
        loss = _describing_loss(llava, processor, some, features[picked], whole, rng)
        named = rng.sample(range(len(shown)), NAME_BATCH)
        naming = naming_loss(llava, processor, [shown[index][1] for index in named], features[named])
        if step < DESCRIBE_STEPS:
            loss = loss + naming
        else:
            loss = loss + 0.3 * naming + choosing((step - DESCRIBE_STEPS) / CHOOSE_STEPS)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def _describing_loss(
    llava: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    shown: Sequence[Shown],
    features: Tensor,
    whole: bool,
    rng: Random,
) -> Tensor:
    """Stage 1's loss for B images by their features (B, 5, width).

    Unless the prompt is to be `whole` it leaves out its beginning, which is the same for every sample.
    """
    prompts = [distillation_prompt(product.title) for product, _ in shown]
    if not whole:
        prompts = [prompt[prompt.index("This product's title") :] for prompt in prompts]
    # Worded anew each time, so that sentences are not learned by heart.
    targets = [describe(product.kind, image.look, rng) for product, image in shown]
    encoded = encode(processor.tokenizer, prompts, targets)
    batch = pad(
        [sample.input_ids for sample in encoded],
        [sample.target_start for sample in encoded],
        processor.tokenizer.pad_token_id,
    )
    visual_tokens = project(llava, features.flatten(0, 1))
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    total = target_loss(llava, ids, mask, labels, visual_tokens, placeholder_ids(processor))
    return total / (labels != IGNORED).sum()


def _labels(look: Look, classes: Sequence[Sequence[str]]) -> list[int]:
    values = (look.colour, look.pattern, look.accent, look.form, look.background)
    return [list(names).index(value) for names, value in zip(classes, values, strict=True)]


def run_tower(tower: CLIPVisionModel, patches: Tensor) -> list[Tensor]:
    """The tower's hidden states, first to last, from embedded patches (V, patches, width)."""
    embeddings = tower.embeddings
    class_token = embeddings.class_embedding.expand(len(patches), 1, -1)
    hidden = torch.cat([class_token, patches], dim=1) + embeddings.position_embedding(embeddings.position_ids)
    states = [tower.pre_layrnorm(hidden)]
    for layer in tower.encoder.layers:
        states.append(layer(states[-1], attention_mask=None))
    return states


def optimizer_steps(parameters: list[nn.Parameter], count: int) -> Iterator[torch.optim.Optimizer]:
    """`count` times the optimizer, its learning rate rising over the first tenth and then falling to nearly 0."""
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=count + 1, pct_start=0.1)
    for _ in range(count):
        yield optimizer
        schedule.step()
