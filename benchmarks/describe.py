"""`describe` beside a plain loop over transformers' `generate`, one image at a time, on a toy LLaVA-v1.6.

    python -m benchmarks.describe

Both ways open the same images, ask the same prompt and give the same texts, which is checked. They take turns in one
process on one thread, and CPU seconds count, the least of several turns, so that other work on the machine does not.
The toy is untrained; its texts end at one of many tokens, so that lengths spread. What is saved here is the overhead of
a decoding step, which a batch shares; on a GPU it is the reading of all weights at every token.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lavic.catalogue.images import open_image
from lavic.demo.toy_llava import TINY, TOY, tiny_checkpoint
from lavic.model.describing import Describer, Prompter, whole_sentences
from lavic.model.loading import BaseModel, load_llava
from lavic.model.processor import load_processor

SIZES = [(500, 500), (800, 600), (600, 900), (1000, 400), (300, 700)]
TOKENS = 64


def write_images(folder: Path, count: int) -> list[Path]:
    """JPEGs of noise and of several shapes."""
    generator = torch.Generator().manual_seed(0)
    paths = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        pixels = torch.randint(0, 256, (height // 20, width // 20, 3), generator=generator, dtype=torch.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels.numpy()).resize((width, height)).save(paths[-1])
    return paths


def toy(folder: Path, size: Any) -> tuple[Any, Prompter]:
    """An untrained model whose texts depend on the image and end at different lengths."""
    tiny_checkpoint(folder, size=size)
    llava = load_llava(BaseModel(str(folder), "float32"), torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    for parameter in llava.parameters():
        if parameter.dim() > 1:
            parameter.data += 0.15 * torch.randn(parameter.shape, generator=generator)
    llava.generation_config.eos_token_id = list(range(3, llava.config.text_config.vocab_size, 60))
    return llava, Prompter(load_processor(str(folder), "anyres"))


def plain(llava: Any, prompter: Prompter, paths: list[Path]) -> list[str]:
    """The loop: the processor and `generate` on one image after the other."""
    texts = []
    for path in paths:
        inputs = prompter.processor(text=prompter.text("Towel"), images=open_image(path), return_tensors="pt")
        out = llava.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        text = prompter.processor.tokenizer.decode(out, skip_special_tokens=True)
        ended = int(out[-1]) in llava.generation_config.eos_token_id
        if ended:
            text = prompter.processor.tokenizer.decode(out[:-1], skip_special_tokens=True)
        texts.append(text.strip() if ended else whole_sentences(text))
    return texts


def batched(llava: Any, prompter: Prompter, paths: list[Path], batch_size: int) -> list[str]:
    """As the command: in order of views and shape."""
    describer = Describer(llava, prompter, TOKENS)
    seen = [(number, prompter.see("Towel", open_image(path))) for number, path in enumerate(paths)]
    seen.sort(key=lambda one: (len(one[1].views), max(one[1].height / one[1].width, one[1].width / one[1].height)))
    texts: dict[int, str] = {}
    for start in range(0, len(seen), batch_size):
        batch = seen[start : start + batch_size]
        texts |= zip((n for n, _ in batch), describer.describe([one for _, one in batch]), strict=True)
    return [texts[number] for number in range(len(paths))]


def cpu_seconds(work: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """Of one run, and what it gave."""
    started = time.process_time()
    texts = work()
    return time.process_time() - started, texts


def main() -> None:
    """Measures and prints images/s of both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="turns of both ways, of which the fastest counts")
    parser.add_argument("--tiny", action="store_true", help="the smallest model: checks the program only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        paths = write_images(Path(name), options.images)
        llava, prompter = toy(Path(name) / "toy", TINY if options.tiny else TOY)
        times: dict[str, list[float]] = {"plain": [], "batched": []}
        for _ in range(options.rounds):
            seconds, expected = cpu_seconds(lambda: plain(llava, prompter, paths))
            times["plain"].append(seconds)
            seconds, texts = cpu_seconds(lambda: batched(llava, prompter, paths, options.batch_size))
            times["batched"].append(seconds)
            assert texts == expected, "the texts differ"
    rates = {way: options.images / min(seconds) for way, seconds in times.items()}
    print(f"{options.images} images, up to {TOKENS} tokens, batches of {options.batch_size}; images a CPU second")
    print(f"  generate in a loop {rates['plain']:.2f}, describe {rates['batched']:.2f}", end="")
    print(f": {rates['batched'] / rates['plain']:.2f} times as fast, texts equal ({len(set(texts))} different ones)")


if __name__ == "__main__":
    main()
