"""Which checkpoint a command starts from, and how it is held in memory; told without PyTorch."""

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["llava", "llava_next"]
ComposedDtype = Literal["auto", "float32", "bfloat16", "float16"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass
class BaseModel:
    """The checkpoint to start from, and how it is held in memory.

    Args:
        name: hub name or local directory of a LLaVA-v1.6 (LLaVA-NeXT) or LLaVA-1.5 checkpoint.
        dtype: of the weights; `auto` is bfloat16 on a GPU that has it, float16 on one that has not, float32 on a CPU.
        quantization: `nf4` holds the language model's frozen weights in 4 bits (needs bitsandbytes); `auto` does so on
            a GPU alone.
        any_base: whether an adapter is put on it that was trained on other weights.
    """

    name: str = "llava-hf/llava-v1.6-mistral-7b-hf"
    dtype: Dtype = "auto"
    quantization: Literal["none", "nf4", "auto"] = "none"
    any_base: bool = False
