"""The fast loss against a plain forward of the whole sequence: same sum, same LoRA gradients."""

import pytest
import torch
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration

from lavic.model.activation_checkpointing import ActivationCheckpointing, Checkpointing, enable_checkpointing
from lavic.model.prefix_reuse import (
    FrozenPrefix,
    segment_batch,
    shared_prefix_loss,
)
from lavic.model.speedups import Speedups
from tests.model.toy import (
    PLACEHOLDERS,
    PREFIX,
    Batch,
    each,
    images,
    lora_parameters,
    plain_loss,
    ragged_batch,
    toy_llava,
    visual_tokens,
)

# transformers computes norms and rotary angles in float32 whatever the model's dtype, and eager's softmax
# too.
TOLERANCE = {torch.float64: 3e-7, torch.float32: 3e-5}
EAGER_TOLERANCE = 3e-5


def fast_loss(
    llava: LlavaNextForConditionalGeneration, batch: Batch, visual: Tensor, speedups: Speedups | None = None
) -> Tensor:
    segments = segment_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=PREFIX, speedups=speedups)
    return shared_prefix_loss(
        llava,
        **batch,
        visual_tokens=visual,
        placeholder_ids=PLACEHOLDERS,
        prefix=FrozenPrefix(PREFIX),
        segments=segments,
    )


def gradients(llava: LlavaNextForConditionalGeneration, loss: Tensor) -> dict[str, Tensor]:
    llava.zero_grad()
    # the two losses may share the vision tower's graph
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]  # torch gives it no types
    found = {name: p.grad.clone() for name, p in lora_parameters(llava).items() if p.grad is not None}
    assert len(found) == len(lora_parameters(llava)) == 2 * (3 * 6 + 2)
    return found


def assert_same(llava: LlavaNextForConditionalGeneration, ours: Tensor, plain: Tensor) -> None:
    eager = llava.config.text_config._attn_implementation == "eager"
    tolerance = EAGER_TOLERANCE if eager else TOLERANCE[plain.dtype]
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    expected = gradients(llava, plain)
    for name, gradient in gradients(llava, ours).items():
        assert expected[name].abs().max() > 1e-7, f"{name} has no gradient to compare"
        bound = tolerance * float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=tolerance, atol=bound, msg=name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("text", ["mistral", "llama"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_equals_the_plain_forward_on_a_ragged_batch(
    text: str, attention: str, dtype: torch.dtype, dropout: float
) -> None:
    llava = toy_llava(text, attention, dropout).to(dtype)
    batch, pixels = ragged_batch(), images(3, dtype)
    torch.manual_seed(11)
    plain = plain_loss(llava, batch, visual_tokens(llava, pixels))
    torch.manual_seed(11)
    assert_same(llava, fast_loss(llava, batch, visual_tokens(llava, pixels)), plain)


@pytest.mark.parametrize(("titles", "targets"), [((4,), (9,)), ((0, 3), (1, 6)), ((0,), (2,)), ((5, 5), (3, 8))])
def test_any_batch_size_and_titles_of_no_or_equal_length(titles: tuple[int, ...], targets: tuple[int, ...]) -> None:
    llava = toy_llava().double()
    batch = ragged_batch(titles, targets)
    visual = visual_tokens(llava, images(len(titles)))
    assert_same(llava, fast_loss(llava, batch, visual), plain_loss(llava, batch, visual))


@pytest.mark.parametrize("prefix", [[], PREFIX[:3], [1, 99, *PREFIX[2:]], [99]])
def test_reuses_as_much_of_the_prefix_as_the_batch_starts_with(prefix: list[int]) -> None:
    llava = toy_llava().double()
    batch, visual = ragged_batch(prefix=prefix), visual_tokens(llava, images(3))
    segments = segment_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=PREFIX)
    agreeing = sum(1 for n in range(1, len(prefix) + 1) if prefix[:n] == PREFIX[:n])
    assert segments.prefix_length == agreeing
    assert_same(llava, fast_loss(llava, batch, visual), plain_loss(llava, batch, visual))


def test_without_a_split_it_makes_its_own() -> None:
    llava = toy_llava().double()
    batch, visual = ragged_batch(), visual_tokens(llava, images(3))
    ours = shared_prefix_loss(llava, **batch, visual_tokens=visual, placeholder_ids=PLACEHOLDERS)
    assert_same(llava, ours, plain_loss(llava, batch, visual))


def test_a_row_without_target_adds_nothing_and_keeps_the_order_of_visual_tokens() -> None:
    llava = toy_llava().double()
    batch, visual = ragged_batch(), visual_tokens(llava, images(3))
    batch["labels"][1] = -100
    assert_same(llava, fast_loss(llava, batch, visual), plain_loss(llava, batch, visual))


def test_a_row_that_ends_in_placeholders() -> None:
    llava = toy_llava().double()
    batch, visual = ragged_batch((20, 0), (1, 12)), visual_tokens(llava, images(2))
    batch = each(batch, lambda tensor: tensor[:, :-3])  # up to row 0's placeholders
    assert batch["input_ids"][0, -1] == PLACEHOLDERS[-1]
    assert_same(llava, fast_loss(llava, batch, visual), plain_loss(llava, batch, visual))


@pytest.mark.parametrize("part", ["vision", "language"])
@pytest.mark.parametrize("how", ["selective", "full"])
def test_activation_checkpointing_changes_nothing(part: str, how: Checkpointing) -> None:
    llava = toy_llava(dropout=0.3).double()
    batch, pixels = ragged_batch(), images(3)
    torch.manual_seed(5)
    plain = plain_loss(llava, batch, visual_tokens(llava, pixels))
    expected = gradients(llava, plain)
    enable_checkpointing(llava, ActivationCheckpointing(**{part: how}))
    calls = count_calls(llava.model.vision_tower if part == "vision" else llava.model.language_model)
    torch.manual_seed(5)
    ours = fast_loss(llava, batch, visual_tokens(llava, pixels))
    before = len(calls)
    found = gradients(llava, ours)
    assert len(calls) > before, "nothing was computed again, so nothing was checkpointed"
    torch.testing.assert_close(ours, plain, rtol=1e-7, atol=0)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9, msg=name)


def count_calls(part: nn.Module) -> list[int]:
    """Grows by one whenever the part's first MLP runs, or begins to."""
    calls: list[int] = []
    mlp = next(module for name, module in part.named_modules() if name.endswith("layers.0.mlp"))
    mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_the_prefix_is_computed_once_and_outlives_inference_mode() -> None:
    llava = toy_llava().double()
    batch, prefix = ragged_batch(), FrozenPrefix(PREFIX)
    segments = segment_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=PREFIX)

    def loss() -> Tensor:
        visual = visual_tokens(llava, images(3))
        return shared_prefix_loss(
            llava, **batch, visual_tokens=visual, placeholder_ids=PLACEHOLDERS, prefix=prefix, segments=segments
        )

    calls = count_calls(llava.model.language_model)
    with torch.inference_mode():
        loss()
    assert len(calls) == 3  # prefix, titles, the rest
    first = loss()
    assert len(calls) == 5
    assert_same(llava, first, plain_loss(llava, batch, visual_tokens(llava, images(3))))


def test_a_prefix_made_in_inference_mode_can_be_trained_against() -> None:
    llava = toy_llava().double()
    batch, prefix = ragged_batch((0, 0), (4, 5)), FrozenPrefix(PREFIX)
    with torch.inference_mode():
        prefix.keys_values(llava)
    segments = segment_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=PREFIX)
    visual = visual_tokens(llava, images(2))
    ours = shared_prefix_loss(
        llava, **batch, visual_tokens=visual, placeholder_ids=PLACEHOLDERS, prefix=prefix, segments=segments
    )
    assert_same(llava, ours, plain_loss(llava, batch, visual))


def test_the_prefix_follows_the_model_to_another_dtype() -> None:
    llava = toy_llava().double()
    prefix = FrozenPrefix(PREFIX)
    assert prefix.keys_values(llava)[0][0].dtype == torch.float64
    assert prefix.keys_values(llava.float())[0][0].dtype == torch.float32


@pytest.mark.parametrize("speedups", [Speedups(reuse_prefix=False), Speedups(no_prompt_gradient=False)])
def test_a_trainable_language_model_is_refused(speedups: Speedups) -> None:
    llava = toy_llava().double()
    llava.model.language_model.layers[1].mlp.up_proj.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight is trainable"):
        fast_loss(llava, ragged_batch(), visual_tokens(llava, images(3)), speedups)


def test_a_trainable_language_model_works_with_both_switches_off() -> None:
    llava = toy_llava().double()
    weight = llava.model.language_model.layers[0].self_attn.k_proj.weight.requires_grad_(True)
    batch, visual = ragged_batch(), visual_tokens(llava, images(3)).detach()
    switches = Speedups(reuse_prefix=False, no_prompt_gradient=False)
    (ours,) = torch.autograd.grad(fast_loss(llava, batch, visual, switches), weight)
    (plain,) = torch.autograd.grad(plain_loss(llava, batch, visual), weight)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("how", ["none", "selective", "full"])
def test_what_rows_start_with_is_computed_once_where_the_language_model_is_trained(how: Checkpointing) -> None:
    llava = toy_llava().double()
    llava.model.language_model.requires_grad_(True)
    trained = dict(llava.model.language_model.named_parameters())
    batch, visual = ragged_batch((4, 4, 7), (9, 12, 5)), visual_tokens(llava, images(3)).detach()
    plain = plain_loss(llava, batch, visual)
    expected = torch.autograd.grad(plain, list(trained.values()))

    enable_checkpointing(llava, ActivationCheckpointing(language=how))
    switches = Speedups(no_prompt_gradient=False)
    first = batch["input_ids"][0].tolist()
    segments = segment_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=first, speedups=switches)
    seen: list[int] = []
    watch = llava.model.language_model.layers[0].mlp.register_forward_hook(
        lambda _module, _inputs, out: seen.append(out.shape[0] * out.shape[1])
    )
    ours = shared_prefix_loss(llava, **batch, visual_tokens=visual, placeholder_ids=PLACEHOLDERS, segments=segments)
    watch.remove()
    assert seen == [len(PREFIX), 3 * segments.ids.shape[1]]
    torch.testing.assert_close(ours, plain, rtol=1e-7, atol=0)
    found = torch.autograd.grad(ours, list(trained.values()))
    for name, ours_, plain_ in zip(trained, found, expected, strict=True):
        assert (ours_ - plain_).abs().max() < TOLERANCE[torch.float64] * plain_.abs().max(), name


def test_left_padding_is_refused() -> None:
    batch = each(ragged_batch(), lambda tensor: tensor.flip(1))
    with pytest.raises(ValueError, match="not right-padded"):
        segment_batch(**batch, placeholder_ids=PLACEHOLDERS)


def test_the_work_left_is_what_the_method_needs() -> None:
    """Of 240 tokens 84 kept, 36 without gradient, 119 with: the last one predicts nothing."""
    batch = ragged_batch((36,), (113,), prefix=list(range(2, 86)))
    assert batch["input_ids"].shape == (1, 240)
    segments = segment_batch(**batch, placeholder_ids=PLACEHOLDERS, prefix_ids=list(range(2, 86)))
    assert (segments.prefix_length, segments.title_ids.shape, segments.ids.shape) == (84, (1, 36), (1, 119))
    assert segments.predicting.shape == (113,)
    assert segments.attention_mask is None
