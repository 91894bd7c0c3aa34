"""What makes a step cheaper without changing its loss or gradients; one switch turns each off."""

from dataclasses import dataclass

from torch import nn

from lavic.model.class_token import keep_class_token_only


@dataclass(frozen=True)
class Speedups:
    """Which exact techniques are used. The first two need a frozen language model.

    Args:
        reuse_prefix: keys and values of the constant start of every prompt are computed once, not once a
        sample. no_prompt_gradient: what stands before the first placeholder is forwarded without gradient.
        target_logits_only: the language model stops at the last token that predicts a target, and the output
            head is applied only where the next token is one.
        class_token_only: the last vision layer computes the class token only.
        compile_vision: `torch.compile` the vision tower. Pays on a GPU; costs a minute at the start.
    """

    reuse_prefix: bool = True
    no_prompt_gradient: bool = True
    target_logits_only: bool = True
    class_token_only: bool = True
    compile_vision: bool = False


PLAIN = Speedups(
    reuse_prefix=False, no_prompt_gradient=False, target_logits_only=False, class_token_only=False
)


def speed_up_vision(vision_tower: nn.Module, speedups: Speedups) -> None:
    """Applies the two switches that concern the vision tower, in place; names of parameters do not change."""
    keep_class_token_only(vision_tower, speedups.class_token_only)
    if speedups.compile_vision:
        vision_tower.compile()
