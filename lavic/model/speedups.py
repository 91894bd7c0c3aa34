"""What makes a step cheaper without changing its loss or gradients; one switch turns each off."""

from dataclasses import dataclass

from transformers import LlavaNextForConditionalGeneration

from lavic.model.adapters.fused_lora import fuse_lora
from lavic.model.class_token import keep_class_token_only


@dataclass(frozen=True)
class Speedups:
    """Which exact techniques are used. The first two need a frozen language model.

    Args:
        reuse_prefix: keys and values of the constant start of every prompt are computed once, not once a sample.
        no_prompt_gradient: what stands before the first placeholder is forwarded without gradient.
        target_logits_only: the language model stops at the last token that predicts a target, and the output
            head is applied only where the next token is one.
        class_token_only: the last vision layer computes the class token only.
        fused_lora: a Linear and its adapter are computed together, with fewer passes over memory.
        compile_vision: `torch.compile` the vision tower. Pays on a GPU; costs a minute at the start.
    """

    reuse_prefix: bool = True
    no_prompt_gradient: bool = True
    target_logits_only: bool = True
    class_token_only: bool = True
    fused_lora: bool = True
    compile_vision: bool = False


PLAIN = Speedups(
    reuse_prefix=False, no_prompt_gradient=False, target_logits_only=False, class_token_only=False, fused_lora=False
)


def speed_up(llava: LlavaNextForConditionalGeneration, speedups: Speedups) -> None:
    """Applies the switches that concern modules rather than a batch, in place; names of parameters do not change."""
    vision_tower = llava.model.vision_tower
    keep_class_token_only(vision_tower, speedups.class_token_only)
    fuse_lora(llava, speedups.fused_lora)
    if speedups.compile_vision:
        vision_tower.compile()
