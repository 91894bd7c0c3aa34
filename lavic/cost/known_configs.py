"""The configurations of the default checkpoints, which costs are counted from where no checkpoint is at hand."""

from pathlib import Path

from transformers import LlavaConfig, LlavaNextConfig

from lavic.files.json_entries import read_json

DEFAULT_MODEL = "llava-hf/llava-v1.6-mistral-7b-hf"
ONE_VIEW_MODEL = "llava-hf/llava-1.5-7b-hf"
FILES = {DEFAULT_MODEL: "llava_v1_6_mistral_7b.json", ONE_VIEW_MODEL: "llava_1_5_7b.json"}


def known_config(name: str) -> LlavaConfig | LlavaNextConfig | None:
    """Returns the configuration of a checkpoint that this package carries, without a network; None for any other."""
    if name not in FILES:
        return None
    stored = read_json(Path(__file__).with_name(FILES[name]))
    return (LlavaConfig if stored["model_type"] == "llava" else LlavaNextConfig)(**stored)


def default_config() -> LlavaNextConfig:
    """Returns the configuration of `DEFAULT_MODEL`: numbers only, no network."""
    return known_config(DEFAULT_MODEL)
