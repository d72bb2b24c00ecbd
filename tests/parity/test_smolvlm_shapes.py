"""SmolVLM in its published sizes, built without memory: every tensor of the reference has its place, and back."""

import foreign  # noqa: F401 (before transformers)
import pytest
import torch
from places import assert_places, stages_of
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    SmolVLMForConditionalGeneration,
)
from transformers import SmolVLMConfig as ReferenceConfig

from mmcli.models.load import build_empty
from mmcli.models.smolvlm import FAMILY
from mmcli.models.smolvlm.config import SmolVLMConfig

BASE = {"hidden_size": 768, "image_size": 512, "patch_size": 16, "num_attention_heads": 12}
SO400M = {
    "hidden_size": 1152, "image_size": 384, "patch_size": 14, "num_attention_heads": 16, "intermediate_size": 4304,
    "num_hidden_layers": 27,
}  # fmt: skip
SMOLLM2 = {  # text_config of each size
    "256M": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "rope_theta": 100_000,
    },
    "500M": {
        "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
        "num_key_value_heads": 5, "head_dim": 64, "rope_theta": 100_000,
    },
    "2.2B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 64, "rope_theta": 130_000,
    },
}  # fmt: skip
MODELS = {"idefics3": Idefics3ForConditionalGeneration, "smolvlm": SmolVLMForConditionalGeneration}
CONFIGS = {"idefics3": Idefics3Config, "smolvlm": ReferenceConfig}
PARAMETERS = {"256M": 256_484_928, "500M": 507_482_304, "2.2B": 2_246_784_880}  # of the larger vocabulary
SIZES = [(kind, size) for kind in MODELS for size in SMOLLM2]


def published(kind: str, size: str) -> dict:
    """config.json as transformers 4 wrote it, where the published ones come from."""
    large = size == "2.2B"
    text = {
        "model_type": "llama", "is_llama_config": True, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_interleaved": False, "pad_token_id": 2, "qk_layer_norms": False, "use_resampler": False,
        "vocab_size": 49155 if large and kind == "idefics3" else 49280,
    }  # fmt: skip
    tower = {"idefics3": "idefics3" if large else "siglip_vision_model", "smolvlm": "smolvlm_vision"}[kind]
    return {
        "model_type": kind, "scale_factor": 3 if large else 4, "tie_word_embeddings": False, "pad_token_id": 128002,
        "image_token_id": 49153 if large and kind == "idefics3" else 49190,
        "text_config": text | SMOLLM2[size], "vision_config": {"model_type": tower} | (SO400M if large else BASE),
    }  # fmt: skip


def as_reference(raw: dict):
    """transformers reads any tower's settings as its own, whatever their type says."""
    vision = {key: value for key, value in raw["vision_config"].items() if key != "model_type"}
    return CONFIGS[raw["model_type"]](**raw | {"vision_config": vision})


@pytest.fixture(scope="module", params=SIZES, ids=str)
def size(request):
    return request.param


def test_names_and_shapes_agree_in_both_directions(size):
    raw = published(*size)
    with torch.device("meta"):
        reference = MODELS[size[0]](as_reference(raw))
    config = SmolVLMConfig.from_hf(raw)
    assert_places(FAMILY.rules(config), build_empty(FAMILY, config), reference, lambda name: [name])
    count = sum(parameter.numel() for parameter in reference.parameters())
    assert sum(stage.parameters for stage in stages_of(FAMILY, config)) == count
    assert config.decoder.vocabulary != 49280 or count == PARAMETERS[size[1]]


def test_published_configurations_and_what_transformers_5_makes_of_them(size):
    raw = published(*size)
    reference = as_reference(raw)
    ours = SmolVLMConfig.from_hf(raw)
    assert_same(ours, reference)
    assert_same(SmolVLMConfig.from_hf(reference.to_dict()), reference)
    assert ours.soft_tokens_of(ours.vision.image_size) == (81 if size[1] == "2.2B" else 64)


@pytest.mark.parametrize("raw", [{}, {"text_config": {"model_type": "llama"}, "vision_config": {}}], ids=str)
@pytest.mark.parametrize("kind", MODELS)
def test_what_a_configuration_leaves_out_has_the_reference_values(kind, raw):
    raw = raw | {"scale_factor": 1}  # the tower that goes without saying has 7 × 7 patches
    reference = CONFIGS[kind](**raw)
    assert_same(SmolVLMConfig.from_hf({"model_type": kind} | raw), reference)
    assert_same(SmolVLMConfig.from_hf(reference.to_dict()), reference)


def assert_same(ours: SmolVLMConfig, reference) -> None:
    text, vision, decoder, tower = reference.text_config, reference.vision_config, ours.decoder, ours.vision
    assert (decoder.vocabulary, decoder.width, decoder.depth) == (
        text.vocab_size,
        text.hidden_size,
        text.num_hidden_layers,
    )
    assert (decoder.heads, decoder.key_heads) == (text.num_attention_heads, text.num_key_value_heads)
    assert (decoder.mlp_width, decoder.head_width) == (text.intermediate_size, text.head_dim)
    assert (decoder.norm_epsilon, decoder.rope_base) == (text.rms_norm_eps, text.rope_parameters["rope_theta"])
    assert decoder.tied == reference.tie_word_embeddings and not decoder.qkv_bias
    assert (tower.width, tower.depth, tower.mlp_width) == (
        vision.hidden_size,
        vision.num_hidden_layers,
        vision.intermediate_size,
    )
    assert (tower.heads, tower.image_size, tower.patch_size) == (
        vision.num_attention_heads,
        vision.image_size,
        vision.patch_size,
    )
    assert tower.norm_epsilon == vision.layer_norm_eps
    assert (ours.scale, ours.image_token) == (reference.scale_factor, reference.image_token_id)
