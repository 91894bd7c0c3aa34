"""The default checkpoint's configuration, which costs are counted from where no checkpoint is at hand."""

from pathlib import Path

from transformers import LlavaNextConfig

from lavic.files.json_entries import read_json

DEFAULT_MODEL = "llava-hf/llava-v1.6-mistral-7b-hf"


def default_config() -> LlavaNextConfig:
    """The configuration of `DEFAULT_MODEL`, from this package: numbers only, no network."""
    return LlavaNextConfig(**read_json(Path(__file__).with_name("llava_v1_6_mistral_7b.json")))
