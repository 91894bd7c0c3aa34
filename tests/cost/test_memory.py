"""The byte counts against what autograd really keeps, at the real widths with fewer layers."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlavaNextConfig

from lavic.cost.counting import Sample, parameters
from lavic.cost.known_configs import default_config
from lavic.cost.memory import NF4_BYTES, Precision, language_activations, logit_bytes, step_bytes, vision_activations
from lavic.model.activation_checkpointing import (
    ActivationCheckpointing,
    Checkpointing,
    enable_checkpointing,
)
from lavic.model.loading import build_on_meta
from lavic.model.parts import TrainableParts, place_adapters, unwrap
from lavic.model.prefix_reuse import FrozenPrefix, segment_batch, shared_prefix_loss
from lavic.model.speedups import Speedups, speed_up
from tests.cost.live_bytes import LiveBytes, onto_fake_device
from tests.cost.test_counting import PLACEHOLDERS, batch
from tests.model.toy import each

CPU = Precision(weights=4, dropout_mask=4)


def few_layers() -> LlavaNextConfig:
    config = default_config()
    config.vision_config.num_hidden_layers = 4
    config.text_config.num_hidden_layers = 3
    return config


def measured(config: LlavaNextConfig, samples: int, how: Checkpointing) -> tuple[int, int, int]:
    """Bytes that the vision tower keeps, that the language model with its logits keeps, and the peak."""
    llava = unwrap(place_adapters(build_on_meta(config), TrainableParts(), "")).train()
    one = each(batch(Sample()), lambda rows: rows.repeat(samples, 1))
    prefix = FrozenPrefix(one["input_ids"][0, : Sample().prefix].tolist())
    segments = segment_batch(**one, placeholder_ids=PLACEHOLDERS, prefix_ids=prefix.ids)
    with FakeTensorMode(allow_non_fake_inputs=True):
        onto_fake_device(llava)
        speed_up(llava, Speedups())
        enable_checkpointing(llava, ActivationCheckpointing(vision=how, language=how))
        pixels = torch.empty(samples * Sample().views, 3, 336, 336)
        with LiveBytes([*llava.parameters(), *llava.buffers(), pixels]) as live:
            cls = llava.model.vision_tower(pixels).last_hidden_state[:, 0]
            visual = llava.model.multi_modal_projector(cls)
            vision = live.now
            loss = shared_prefix_loss(
                llava, **one, visual_tokens=visual, placeholder_ids=PLACEHOLDERS, prefix=prefix, segments=segments
            )
            language = live.now - vision
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    return vision, language, live.peak


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("how", ["none", "selective", "full"])
def test_activations_are_what_autograd_keeps(how: Checkpointing, samples: int) -> None:
    config, speedups = few_layers(), Speedups()
    vision, language, peak = measured(config, samples, how)
    args = (config, TrainableParts(), CPU)
    counted_vision, _ = vision_activations(*args, samples * 5, speedups, how)
    counted_language, _ = language_activations(*args, Sample(), samples, speedups, how)
    logits, _ = logit_bytes(config, CPU, Sample(), samples, speedups)
    whole = step_bytes(*args, samples, Sample(), speedups, ActivationCheckpointing(how, how))
    assert counted_vision == pytest.approx(vision, rel=0.05)
    assert counted_language + logits == pytest.approx(language, rel=0.05, abs=15e6)
    whole = step_bytes(*args, samples, Sample(), speedups, ActivationCheckpointing(how, how))
    parts = ("vision_activations", "language_activations", "logits", "workspace")
    assert sum(whole[part] for part in parts) == pytest.approx(peak, rel=0.1)


def test_weights_add_up_to_the_model_s() -> None:
    config = default_config()
    counted = step_bytes(config, TrainableParts(), Precision(), batch=1)
    weights = counted["vision_weights"] + counted["language_weights"]
    assert weights == 2 * sum(parameters(config).values())
    assert counted["optimizer"] == 2 * 4 * 3_645_440


@pytest.mark.parametrize(
    "trainable",
    [
        TrainableParts(),
        TrainableParts(vision="frozen", projector="full", language="lora"),
        TrainableParts(vision="full", projector="full", language="full"),
        TrainableParts(vision="frozen", projector="full", language="full", embeddings=False),
    ],
    ids=lambda parts: "-".join(parts.modes().values()),
)
def test_weights_are_those_of_the_model_that_is_trained(trainable: TrainableParts) -> None:
    """At the real widths, tensor by tensor: 16 bits what is frozen, float32 what is trained."""
    config = default_config()
    llava = build_on_meta(config).to(torch.bfloat16)
    held = sum(p.numel() * p.element_size() for p in place_adapters(llava, trainable, "").parameters())
    counted = step_bytes(config, trainable, Precision(), batch=1)
    assert sum(counted[part] for part in ("vision_weights", "language_weights", "trainable_weights")) == held


def test_nf4_weights_are_what_bitsandbytes_stores() -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    weight = torch.randn(512, 1024)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    stored = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert weight.numel() * NF4_BYTES == pytest.approx(stored, rel=1e-3)
