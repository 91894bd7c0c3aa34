"""What the toys' vision towers and language models have in common, whichever LLaVA they belong to."""

from typing import Any

from transformers import CLIPVisionConfig, LlamaTokenizer

HEAD = 32  # width of an attention head


def clip_config(side: int, patch: int, width: int, layers: int) -> CLIPVisionConfig:
    """A CLIP vision tower's.

    Args:
        side: of an image, in pixels.
        patch: side of a patch, in pixels.
        width: of its layers.
        layers: how many it has.
    """
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // HEAD),
        image_size=side,
        patch_size=patch,
        projection_dim=width,
    )


def text_options(tokenizer: LlamaTokenizer, width: int, layers: int, free_rows: int = 0) -> dict[str, Any]:
    """What a `LlamaConfig` or `MistralConfig` is made of.

    Args:
        tokenizer: its tokens have a row each.
        width: of the layers.
        layers: how many there are.
        free_rows: rows for further tokens, at least.
    """
    heads = max(2, width // HEAD)
    return {
        "vocab_size": -(-(len(tokenizer) + free_rows) // 64) * 64,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def cut_options(side: int) -> dict[str, dict[str, int]]:
    """What makes an image processor of CLIP's or LLaVA's cut squares of that side, in pixels."""
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
