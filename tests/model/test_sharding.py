"""What FSDP2 shards is found by structure, in towers and language models of several families."""

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    Gemma3TextConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from lavic.model.sharding import is_sharded, repeated_layers

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {**SHAPE, "vocab_size": 64, "num_key_value_heads": 2, "pad_token_id": 0}
CONFIGS = [
    CLIPVisionConfig(**SHAPE), SiglipVisionConfig(**SHAPE), LlamaConfig(**TEXT), Qwen2Config(**TEXT),
    Gemma3TextConfig(**TEXT, head_dim=8), Phi3Config(**TEXT), MixtralConfig(**TEXT, num_local_experts=2),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_the_layers_are_found_whatever_the_family(config: PretrainedConfig) -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    layers = repeated_layers(model)
    assert len(layers) == 3
    inside = {id(p) for layer in layers for p in layer.parameters()}
    outside = [name for name, p in model.named_parameters() if id(p) not in inside]
    assert not any("attn" in name or "layers." in name for name in outside if not name.startswith("head."))


def test_layers_in_lists_inside_a_layer_are_not_sharded_twice() -> None:
    inner = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    layer = torch.nn.ModuleDict({"experts": inner})
    assert repeated_layers(torch.nn.ModuleDict({"layers": torch.nn.ModuleList([layer])})) == [layer]
    assert repeated_layers(torch.nn.Linear(2, 2)) == []


def test_weights_of_fsdp2_are_told_from_whole_ones() -> None:
    model = torch.nn.Linear(2, 2)
    assert not is_sharded(model)
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        part = DTensor.from_local(torch.zeros(1, 2), DeviceMesh("cpu", [0, 1]), [Shard(0)])
        model.weight = torch.nn.Parameter(part)
        assert is_sharded(model)
    finally:
        distributed.destroy_process_group()
