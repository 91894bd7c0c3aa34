"""Stage 2's model: the base and stage 1's adapter, both frozen, and a second adapter on the language model.

The two are separate PEFT adapters over different Linears, so either directory loads alone, and both together.
"""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model

from lavic.model.adapters.directory import put_in
from lavic.model.adapters.saved_adapter import read_saved_adapter
from lavic.model.loading import Llava
from lavic.model.parts import Lora, TrainableParts, lora_config

DISTILLED, RECOMMENDATION = "distilled", "recommendation"


def stack_adapters(
    llava: Llava,
    distilled: Path | None,
    recommendation: Path | None,
    lora: Lora,
    base_name: str,
    seed: int,
    any_base: bool = False,
) -> PeftModel:
    """Wraps LLaVA with both adapters active, of which the second alone is trainable.

    Args:
        llava: the base, frozen.
        distilled: stage 1's adapter directory; None leaves the vision as it was pretrained.
        recommendation: stage 2's adapter directory; None makes a new adapter.
        lora: the new adapter's shape; its output head excluded, every Linear of the language model gets one.
        base_name: noted in a new adapter, so that PEFT finds its base again.
        seed: of the new adapter's weights.
        any_base: whether the adapters may have been trained on other weights.

    Raises:
        UserError: a directory holds no adapter or another model's.
    """
    llava.name_or_path = base_name
    parts = TrainableParts(vision="frozen", projector="frozen", language="lora", lora=lora)
    config = lora_config(llava, parts)
    first = read_saved_adapter(llava, distilled, task="distillation", any_base=any_base) if distilled else None
    second = (
        read_saved_adapter(llava, recommendation, task="recommendation", any_base=any_base) if recommendation else None
    )
    model: PeftModel | Llava = put_in(llava, first, trainable=False, adapter=DISTILLED) if first else llava
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        if second:
            model = put_in(model, second, trainable=True, adapter=RECOMMENDATION)
        elif isinstance(model, PeftModel):
            model.add_adapter(RECOMMENDATION, config)
        else:
            model = get_peft_model(llava, config, adapter_name=RECOMMENDATION)
    names = [name for name in (DISTILLED, RECOMMENDATION) if name in model.peft_config]
    model.base_model.set_adapter(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{RECOMMENDATION}." in name)
    return model
