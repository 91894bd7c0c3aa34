"""Stage 2's model: the base and stage 1's adapter, both frozen, and a second adapter on the language model.

The two are separate PEFT adapters over different Linears, so either directory loads alone, and both together.
"""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlavaNextForConditionalGeneration

from lavic.model.adapters.directory import check_adapter, load_adapter
from lavic.model.parts import Lora, TrainableParts, _target_pattern

DISTILLED, RECOMMENDATION = "distilled", "recommendation"


def stack_adapters(
    llava: LlavaNextForConditionalGeneration,
    distilled: Path | None,
    recommendation: Path | None,
    lora: Lora,
    base_name: str,
    seed: int,
) -> PeftModel:
    """Wraps LLaVA with both adapters active, of which the second alone is trainable.

    Args:
        llava: the base, frozen.
        distilled: stage 1's adapter directory; None leaves the vision as it was pretrained.
        recommendation: stage 2's adapter directory; None makes a new adapter.
        lora: the new adapter's shape; its output head excluded, every Linear of the language model gets one.
        base_name: noted in a new adapter, so that PEFT finds its base again.
        seed: of the new adapter's weights.

    Raises:
        UserError: a directory holds no adapter or another model's.
    """
    llava.name_or_path = base_name
    parts = TrainableParts(vision="frozen", projector="frozen", language="lora", lora=lora)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_target_pattern(llava, parts),
        bias="none",
    )
    if recommendation is not None:
        check_adapter(llava, recommendation)
    model = load_adapter(llava, distilled, trainable=False, adapter=DISTILLED) if distilled else None
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        if recommendation is not None and model is None:
            model = PeftModel.from_pretrained(
                llava, str(recommendation), adapter_name=RECOMMENDATION, is_trainable=True
            )
        elif recommendation is not None and model is not None:
            model.load_adapter(str(recommendation), adapter_name=RECOMMENDATION, is_trainable=True)
        elif model is None:
            model = get_peft_model(llava, config, adapter_name=RECOMMENDATION)
        else:
            model.add_adapter(RECOMMENDATION, config)
    assert model is not None
    model.base_model.set_adapter([DISTILLED, RECOMMENDATION] if distilled else [RECOMMENDATION])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{RECOMMENDATION}." in name)
    return model
