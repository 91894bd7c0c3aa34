"""Class tokens and placeholders, against plain loops."""

from pathlib import Path

import torch

from lavic.model.loading import BaseModel, load_llava
from lavic.model.visual_tokens import cls_tokens, fill_placeholders, project


def test_placeholders_are_filled_in_order_and_nothing_else_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, 50, (3, 20), generator=generator)
    for row, start in enumerate((2, 9, 14)):
        input_ids[row, start : start + 5] = torch.arange(90, 95)
    embeds = torch.randn(3, 20, 8, generator=generator)
    visual_tokens = torch.randn(15, 8, generator=generator, requires_grad=True)
    filled = fill_placeholders(embeds, input_ids, visual_tokens, range(90, 95))
    expected, used = embeds.clone(), 0
    for row in range(3):
        for column in range(20):
            if int(input_ids[row, column]) >= 90:
                expected[row, column] = visual_tokens[used].detach()
                used += 1
    assert used == 15
    assert torch.equal(filled, expected)
    filled.sum().backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    assert visual_tokens.grad is not None
    assert torch.equal(visual_tokens.grad, torch.ones(15, 8))


def test_the_class_token_is_the_last_layers_before_the_post_layernorm(tiny: Path) -> None:
    llava = load_llava(BaseModel(str(tiny)), torch.device("cpu"))
    tower = llava.model.vision_tower
    pixels = torch.randn(4, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    layers = tower(pixels, output_hidden_states=True).hidden_states
    cls = cls_tokens(llava, pixels)
    torch.testing.assert_close(cls, layers[-1][:, 0])
    assert not torch.allclose(cls, tower(pixels).pooler_output)
    assert project(llava, cls).shape == (4, llava.config.text_config.hidden_size)
