"""`python -m lavic plan`."""
import json
from pathlib import Path
from transformers import LlavaNextConfig

def default_config() -> LlavaNextConfig:
    """The default checkpoint's configuration, from this package."""
    file = Path(__file__).parent / "model" / "llava_v1_6_mistral_7b.json"
    return LlavaNextConfig(**json.loads(file.read_text(encoding="utf-8")))
