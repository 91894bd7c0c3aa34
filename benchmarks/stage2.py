"""Stage 2's savings beside the plain way, on LLaVA-v1.6-mistral-7B's proportions at a part of its widths.

    python -m benchmarks.stage2

1. Training: CLS tokens out of the item store, beside opening, cutting and encoding ten images in every step.
2. Scoring ten candidates on one prompt's keys and values, beside ten separate forward passes.
3. A training step beside its floor: the FLOP that the language model cannot avoid, at the speed that this device
   reaches in plain matrix products of the same shapes.
4. A batch's step and its prompts' scores with their common start run once, beside the same with it in every row.

Layers, views, tokens a view and tokens a prompt are the real model's, so FLOPs keep their proportions; the time to
open and cut an image is that of real images. Times are CPU seconds of one thread, the least of several runs, so
that other work on the machine does not count. Both ways must give the same loss and the same scores.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    MistralConfig,
)

from lavic.catalogue.images import open_image
from lavic.catalogue.items import Item
from lavic.cost.counting import Sample, language_linears, step_flop
from lavic.model.adapters.fused_lora import fuse_lora
from lavic.model.adapters.stacking import stack_adapters
from lavic.model.loss import target_loss
from lavic.model.parts import Lora, TrainableParts, unwrap
from lavic.model.prefix_reuse import segment_batch, shared_prefix_loss
from lavic.model.scoring import PromptState
from lavic.model.speedups import PLAIN
from lavic.model.views import cut_views, restrict_grid
from lavic.model.visual_tokens import Normalise, cls_tokens, project
from lavic.tasks.recommendation.item_store import ItemStore, build_item_store
from lavic.tasks.recommendation.task import SHARED_START

CANDIDATES, VIEWS, ANSWER = 10, 5, 11  # ten items, five views each, and an ID of ten tokens with EOS
START = 113  # tokens before the conversation, by Mistral's tokenizer
PLACEHOLDERS = [32002, 32003, 32004, 32005, 32006]
IDENTITY = {"model": "benchmark", "adapter": "none", "views": "five"}


def scaled_llava(scale: int, layers: int = 32) -> LlavaNextForConditionalGeneration:
    """LLaVA-v1.6-mistral-7B with all widths divided by `scale`, untrained; `layers` of the language model."""
    vision = CLIPVisionConfig(
        hidden_size=1024 // scale,
        intermediate_size=4096 // scale,
        num_hidden_layers=24,
        num_attention_heads=max(1, 16 // scale),
        image_size=336,
        patch_size=14,
    )
    text = MistralConfig(
        hidden_size=4096 // scale,
        intermediate_size=14336 // scale,
        num_hidden_layers=layers,
        num_attention_heads=max(2, 32 // scale),
        num_key_value_heads=max(1, 8 // scale),
        vocab_size=32064,
        sliding_window=None,
        max_position_embeddings=32768,
    )
    config = LlavaNextConfig(vision_config=vision, text_config=text, image_token_index=32000)
    return LlavaNextForConditionalGeneration(config).requires_grad_(False).eval()


def cpu_seconds(work: Callable[[], Tensor], runs: int) -> tuple[float, Tensor]:
    """The least CPU time of several runs after a first one, and the last result."""
    result, least = work(), float("inf")
    for _ in range(runs):
        started = time.process_time()
        result = work()
        least = min(least, time.process_time() - started)
    return least, result


def measure_training(llava: LlavaNextForConditionalGeneration, prompt_tokens: int, runs: int) -> None:
    """Prints the seconds a training sample takes both ways."""
    side = llava.config.vision_config.image_size
    pixels = {"height": side, "width": side}
    image_processor = restrict_grid(LlavaNextImageProcessor(size={"shortest_edge": side}, crop_size=pixels), "five")
    normalise = Normalise(image_processor)
    torch.manual_seed(0)
    input_ids = torch.randint(3, 32000, (1, prompt_tokens + ANSWER))
    for candidate in range(CANDIDATES):
        start = prompt_tokens * (candidate + 1) // (CANDIDATES + 2)
        input_ids[0, start : start + VIEWS] = torch.tensor(PLACEHOLDERS)
    labels = torch.full_like(input_ids, -100)
    labels[:, prompt_tokens:] = input_ids[:, prompt_tokens:]
    model = stack_adapters(llava, None, None, Lora(dropout=0.0), "benchmark", seed=0)
    inner = unwrap(model)

    def step(visual_tokens: Tensor) -> Tensor:
        mask = torch.ones_like(input_ids)
        loss = target_loss(inner, input_ids, mask, labels, visual_tokens, PLACEHOLDERS)
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        return loss.detach()

    with tempfile.TemporaryDirectory() as folder:
        items = []
        for number in range(CANDIDATES):
            path = Path(folder) / f"B{number:09d}_0.jpg"
            noise = torch.randint(0, 256, (50, 50, 3), dtype=torch.uint8).numpy()
            Image.fromarray(noise).resize((1000, 1000)).save(path)
            items.append(Item(path.stem[:-2], "", path))

        def views_of(path: Path) -> Tensor:
            return cut_views(image_processor, open_image(path))

        def encode(views: Tensor) -> Tensor:
            with torch.no_grad():
                return cls_tokens(inner, normalise(views, torch.float32))

        def cut_all() -> Tensor:
            return torch.cat([views_of(item.image) for item in items if item.image])

        images, views = cpu_seconds(cut_all, runs)
        tower, cls = cpu_seconds(lambda: encode(views), runs)
        fuse_lora(inner, enabled=False)
        plain_language, plain_loss = cpu_seconds(lambda: step(project(inner, cls)), runs)
        fuse_lora(inner)

        root = Path(folder) / "store"
        build_item_store(root, IDENTITY, items, views_of, encode, cls.shape[1])
        store = ItemStore.open(root, IDENTITY, items)
        ids = [item.id for item in items]
        lookup, stored = cpu_seconds(lambda: store.cls_tokens(ids), max(runs, 20))
        language, stored_loss = cpu_seconds(lambda: step(project(inner, stored.float())), runs)
    assert torch.allclose(plain_loss, stored_loss, rtol=1e-3), (plain_loss, stored_loss)

    plain, fast = images + tower + plain_language, lookup + language
    print(f"training, one sample of {prompt_tokens} prompt tokens and {CANDIDATES} candidates, CPU seconds")
    print(f"  open and cut the images {images:.3f}, vision tower {tower:.3f}, language model {plain_language:.3f}")
    print(f"  item store lookup {lookup:.6f}, language model with fused LoRA {language:.3f}")
    print(f"  loss {float(plain_loss):.4f} plain, {float(stored_loss):.4f} stored")
    print(f"  plain {plain:.3f}, with the store {fast:.3f}: {plain / fast:.2f} times as fast")
    print(f"  images already cut: {(tower + plain_language) / fast:.2f} times as fast")


@torch.no_grad()
def measure_scoring(llava: LlavaNextForConditionalGeneration, prompt_tokens: int, runs: int) -> None:
    """Prints the seconds a conversation's ten scores take both ways."""
    torch.manual_seed(1)
    prompt = torch.randint(3, 32000, (1, prompt_tokens))
    answers = [[*torch.randint(3, 32000, (ANSWER - 1,)).tolist(), 2] for _ in range(CANDIDATES)]
    nothing = torch.empty(0, llava.config.text_config.hidden_size)

    def shared() -> Tensor:
        state = PromptState(llava, prompt, torch.ones_like(prompt), nothing, PLACEHOLDERS)
        return state.scores([answers], [0])[0]

    def separate() -> Tensor:
        scores = []
        for answer in answers:
            tokens = torch.cat([prompt, torch.tensor([answer])], dim=1)
            hidden = llava.model.language_model(input_ids=tokens, use_cache=False).last_hidden_state
            logits = llava.lm_head(hidden[0, prompt_tokens - 1 : -1]).log_softmax(dim=-1)
            scores.append(logits.gather(1, torch.tensor(answer).unsqueeze(1)).sum())
        return torch.stack(scores)

    together, scores = cpu_seconds(shared, runs)
    apart, plain = cpu_seconds(separate, runs)
    assert torch.allclose(scores, plain, atol=1e-2), (scores, plain)
    print(f"scoring {CANDIDATES} candidates after {prompt_tokens} prompt tokens, CPU seconds")
    print(f"  ten forward passes {apart:.3f}, shared {together:.3f}: {apart / together:.2f} times as fast")


def matmul_seconds(config: LlavaNextConfig, tokens: int) -> float:
    """CPU seconds of one layer's products over `tokens` tokens, each forward and for its input's gradient, as plain
    matrix products of float32; the second of two runs."""
    seconds = 0.0
    for linear in language_linears(config).values():
        inputs, weight = torch.randn(tokens, linear.inputs), torch.randn(linear.outputs, linear.inputs)
        for _ in range(2):
            started = time.process_time()
            torch.mm(torch.mm(inputs, weight.T), weight)
            taken = time.process_time() - started
        seconds += taken
    return seconds


def measure_floor(llava: LlavaNextForConditionalGeneration, prompt_tokens: int, runs: int) -> None:
    """Prints how many times the floor a training step takes, the two measured in turns."""
    tokens, config = prompt_tokens + ANSWER, llava.config
    torch.manual_seed(2)
    input_ids = torch.randint(3, 32000, (1, tokens))
    labels = torch.where(torch.arange(tokens) >= prompt_tokens, input_ids, -100)
    trainable = TrainableParts(vision="frozen", projector="frozen", language="lora", lora=Lora(dropout=0.1))
    inner = unwrap(stack_adapters(llava, None, None, trainable.lora, "benchmark", seed=0)).train()
    fuse_lora(inner)
    prompt = (input_ids, torch.ones_like(input_ids), labels)
    speedups = replace(PLAIN, target_logits_only=True, fused_lora=True)
    segments = segment_batch(*prompt, PLACEHOLDERS, speedups=speedups)
    nothing = torch.empty(0, config.text_config.hidden_size)

    def step() -> Tensor:
        loss = shared_prefix_loss(inner, *prompt, nothing, PLACEHOLDERS, segments=segments)
        torch.autograd.backward(loss)
        return loss.detach()

    sample = Sample(views=0, tokens=tokens, prefix=0, before_placeholder=0, targets=ANSWER)
    flop = step_flop(config, trainable, sample, speedups).language.total
    layer = 4.0 * tokens * sum(linear.parameters for linear in language_linears(config).values())
    ratios = []
    for _ in range(runs):
        before = matmul_seconds(config, tokens)
        taken, _ = cpu_seconds(step, 1)
        rate = 2 * layer / (before + matmul_seconds(config, tokens))
        ratios.append((taken / (flop / rate), taken, rate))
    ratio, taken, rate = sorted(ratios)[len(ratios) // 2]
    print(f"a training step of {tokens} tokens, CPU seconds, the middle of {runs} turns")
    print(f"  floor {flop / rate:.3f}: {flop / 1e9:.0f} GFLOP at {rate / 1e9:.1f} GFLOP/s of plain products")
    print(f"  step {taken:.3f}: {ratio:.2f} times the floor")


def measure_start(llava: LlavaNextForConditionalGeneration, prompt_tokens: int, batch: int, runs: int) -> None:
    """Prints the seconds of a batch with its rows' common start run once, and with it run in each."""
    torch.manual_seed(3)
    input_ids = torch.randint(3, 32000, (batch, prompt_tokens + ANSWER))
    input_ids[:, :START] = input_ids[:1, :START]
    labels = torch.where(torch.arange(prompt_tokens + ANSWER) >= prompt_tokens, input_ids, -100)
    model = stack_adapters(llava, None, None, Lora(dropout=0.0), "benchmark", seed=0)
    inner = unwrap(model).train()
    fuse_lora(inner)
    batch_of = (input_ids, torch.ones_like(input_ids), labels)
    nothing = torch.empty(0, llava.config.text_config.hidden_size)

    def step(common: list[int]) -> Tensor:
        segments = segment_batch(*batch_of, PLACEHOLDERS, common, SHARED_START)
        loss = shared_prefix_loss(inner, *batch_of, nothing, PLACEHOLDERS, segments=segments)
        torch.autograd.backward(loss)
        return loss.detach()

    @torch.no_grad()
    def read(ids: Tensor) -> Tensor:
        PromptState(inner, ids, torch.ones_like(ids), nothing, PLACEHOLDERS)
        return ids

    each, loss = cpu_seconds(lambda: step([]), runs)
    once, same_loss = cpu_seconds(lambda: step(input_ids[0].tolist()), runs)
    assert torch.allclose(loss, same_loss, rtol=1e-4), (loss, same_loss)
    prompts = input_ids[:, :prompt_tokens]
    others = torch.cat([torch.arange(3, 3 + batch).unsqueeze(1), prompts[:, 1:]], dim=1)  # alike in nothing
    read_each, _ = cpu_seconds(lambda: read(others), runs)
    read_once, _ = cpu_seconds(lambda: read(prompts), runs)
    print(f"{batch} rows of {prompt_tokens} tokens, of which {START} are common, CPU seconds")
    print(f"  training step: in each row {each:.3f}, once {once:.3f}: {each / once:.2f} times as fast")
    print(f"  prompts before their scores: {read_each:.3f}, {read_once:.3f}: {read_each / read_once:.2f} times as fast")


def main() -> None:
    """Measures the savings and the floor for short and long prompts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=16, help="the real widths are divided by this")
    parser.add_argument("--prompt_tokens", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--runs", type=int, default=2, help="timed runs of each way")
    parser.add_argument("--layers", type=int, default=32, help="of the language model, where the floor is measured")
    parser.add_argument("--floor", action="store_true", help="the third alone")
    parser.add_argument("--start", type=int, metavar="ROWS", help="the fourth alone, with as many rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"widths / {options.scale}, {options.layers} layers; load average {os.getloadavg()}")
    for prompt_tokens in options.prompt_tokens:
        if options.start:
            measure_start(scaled_llava(options.scale, options.layers), prompt_tokens, options.start, options.runs)
            continue
        measure_floor(scaled_llava(options.scale, options.layers), prompt_tokens, options.runs)
        if not options.floor:
            llava = scaled_llava(options.scale)
            measure_scoring(llava, prompt_tokens, options.runs)
            measure_training(llava, prompt_tokens, options.runs)


if __name__ == "__main__":
    main()
