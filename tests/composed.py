"""A LLaVA-1.5 composed of the demo's CLIP and Llama, which have learned next to nothing."""

from pathlib import Path

import pytest

from lavic.demo import toy_parts
from lavic.demo.questions import drawn, split_images
from lavic.demo.toy_parts import build_clip, build_llama
from lavic.model.composing import compose


def compose_toy(folder: Path) -> Path:
    """Writes `clip`, `llama` and, returned, `composed` into `folder`; in seconds."""
    shown = split_images(counts={"test": 0, "val": 0, "train": 60})["train"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_parts, "VISION_STEPS", 2)
        patch.setattr(toy_parts, "TEXT_STEPS", 2)
        build_clip(folder / "clip", [drawn(*one) for one in shown[:20]], [image.look for _, image in shown[:20]], 0)
        build_llama(folder / "llama", shown, 0)
    compose(str(folder / "clip"), str(folder / "llama"), folder / "composed")
    return folder / "composed"
