"""The counts against the real configuration, built on the meta device and run under torch's own FLOP counter."""

from dataclasses import fields, replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CONFIG_MAPPING, LlavaNextConfig

from lavic.cost.counting import Flop, Sample, parameters, step_flop, trainable_parameters
from lavic.cost.known_configs import default_config
from lavic.model.loading import AnyLlavaConfig, build_on_meta
from lavic.model.parts import TrainableParts, place_adapters, unwrap
from lavic.model.prefix_reuse import FrozenPrefix, segment_batch, shared_prefix_loss
from lavic.model.speedups import PLAIN, Speedups, speed_up
from tests.model.toy import Batch

PLACEHOLDERS = [32002, 32003, 32004, 32005, 32006]
SWITCHES = [field.name for field in fields(Speedups) if field.name != "compile_vision"]  # which needs real tensors


@pytest.fixture(scope="module")
def config() -> LlavaNextConfig:
    config = default_config()
    for part in (config, config.vision_config, config.text_config):
        part._attn_implementation = "eager"  # as matrix products, which the counter sees
    return config


def batch(sample: Sample) -> Batch:
    ids = torch.arange(1000, 1000 + sample.tokens)
    ids[sample.before_placeholder : sample.before_placeholder + 5] = torch.tensor(PLACEHOLDERS)
    labels = torch.where(torch.arange(sample.tokens) >= sample.tokens - sample.targets, ids, -100)
    return {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], "labels": labels[None]}


def measured(config: LlavaNextConfig, sample: Sample, speedups: Speedups) -> dict[str, float]:
    """FLOP of `vision` and `language`, forward and in all, of one sample on the meta device."""
    llava = unwrap(place_adapters(build_on_meta(config), TrainableParts(), "")).train()
    speed_up(llava, speedups)
    one = batch(sample)
    prefix = FrozenPrefix(one["input_ids"][0, : sample.prefix].tolist())
    segments = segment_batch(**one, placeholder_ids=PLACEHOLDERS, prefix_ids=prefix.ids, speedups=speedups)
    prefix.keys_values(llava)
    pixels = torch.empty(sample.views, 3, 336, 336, device="meta")

    with FlopCounterMode(display=False) as counter:
        cls = llava.model.vision_tower(pixels).last_hidden_state[:, 0]
        visual = llava.model.multi_modal_projector(cls)
        vision_forward = float(counter.get_total_flops())
        leaf = visual.detach().requires_grad_()
        loss = shared_prefix_loss(
            llava, **one, visual_tokens=leaf, placeholder_ids=PLACEHOLDERS, prefix=prefix, segments=segments.to("meta")
        )
        forward = float(counter.get_total_flops())
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        language = float(counter.get_total_flops())
        visual.backward(torch.empty_like(visual))
        total = float(counter.get_total_flops())
    return {
        "vision forward": vision_forward,
        "language forward": forward - vision_forward,
        "language backward": language - forward,
        "vision backward": total - language,
    }


@pytest.mark.parametrize(
    "speedups",
    [Speedups(), PLAIN, *(replace(PLAIN, **{switch: True}) for switch in SWITCHES)],
    ids=["all", "none", *SWITCHES],
)
def test_flop_equal_torch_s_count(config: LlavaNextConfig, speedups: Speedups) -> None:
    found = measured(config, Sample(), speedups)
    counted = step_flop(config, TrainableParts(), Sample(), speedups)
    expected = {
        "vision forward": counted.vision.forward,
        "language forward": counted.language.forward,
        "language backward": counted.language.backward,
        "vision backward": counted.vision.backward,
    }
    for part, flop in expected.items():
        assert flop == pytest.approx(found[part], rel=1e-9), part


def test_patches_all_go_through_the_projector(config: LlavaNextConfig) -> None:
    llava = build_on_meta(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        states = llava.model.vision_tower(torch.empty(5, 3, 336, 336, device="meta")).last_hidden_state
        llava.model.multi_modal_projector(states[:, 1:])
    frozen = TrainableParts(vision="frozen", projector="frozen", language="lora")
    counted = step_flop(config, frozen, replace(Sample(), patches=True), PLAIN).vision
    assert counted.total == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_the_issue_s_bound_at_real_size(config: LlavaNextConfig) -> None:
    plain = step_flop(config, TrainableParts(), Sample(), PLAIN).total / 1e12
    ours = step_flop(config, TrainableParts(), Sample(), Speedups()).total / 1e12
    print(f"plain {plain:.3f} TFLOP a sample, ours {ours:.3f}")
    assert plain == pytest.approx(10.94, abs=0.1)
    assert ours <= 8.0


def any_llava(kind: str, vision: str, text: str, tied: bool) -> AnyLlavaConfig:
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    tower = CONFIG_MAPPING[vision](**small, image_size=56, patch_size=14)
    language = CONFIG_MAPPING[text](**small, num_key_value_heads=2, vocab_size=300, tie_word_embeddings=tied)
    return CONFIG_MAPPING[kind](vision_config=tower, text_config=language, tie_word_embeddings=tied)


@pytest.mark.parametrize(
    ("kind", "vision", "text", "tied"),
    [
        ("llava_next", "clip_vision_model", "mistral", False),
        ("llava", "clip_vision_model", "llama", False),
        ("llava", "clip_vision_model", "qwen2", True),
        ("llava_next", "siglip_vision_model", "qwen3", False),
    ],
)
def test_parameters_equal_the_model_s(kind: str, vision: str, text: str, tied: bool) -> None:
    config = any_llava(kind, vision, text, tied)
    llava = build_on_meta(config)
    counted = parameters(config)
    assert sum(counted.values()) == sum(p.numel() for p in llava.parameters())
    assert counted["vision"] == sum(p.numel() for p in llava.model.vision_tower.parameters())
    assert counted["language"] == sum(p.numel() for p in llava.model.language_model.parameters())
    assert counted["head"] == (0 if tied else 300 * 64)


def test_stage_1_trains_what_the_paper_does(config: LlavaNextConfig) -> None:
    assert sum(trainable_parameters(config, TrainableParts()).values()) == 3_645_440


def test_flop_add_up() -> None:
    both = (Flop(1, 2, 3) + Flop(10, 20, 30)) * 2
    assert (both.forward, both.backward, both.total) == (22, 110, 132)
