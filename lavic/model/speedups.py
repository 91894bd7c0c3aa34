"""What makes a step cheaper without changing its loss or gradients; one switch turns each off."""

from dataclasses import dataclass

from lavic.model.adapters.fused_lora import fuse_lora
from lavic.model.class_token import has_class_token, keep_class_token_only
from lavic.model.loading import Llava


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


def speed_up(llava: Llava, speedups: Speedups) -> None:
    """Applies the switches that concern modules rather than a batch, in place; names of parameters do not change.

    The last vision layer is left whole where the tower has no class token, or where patch tokens come of that layer.
    """
    vision_tower = llava.model.vision_tower
    if has_class_token(vision_tower):
        layers, read = llava.config.vision_config.num_hidden_layers, llava.config.vision_feature_layer
        last_is_read = bool({-1, layers} & set([read] if isinstance(read, int) else read))
        keep_class_token_only(vision_tower, speedups.class_token_only and not last_is_read)
    fuse_lora(llava, speedups.fused_lora)
    if speedups.compile_vision:
        vision_tower.compile()
