"""Llama 3.2 Vision in its published sizes, built without memory: every tensor of the reference has its place."""

import foreign  # noqa: F401 (before transformers)
import pytest
import torch
from places import assert_places, stages_of
from transformers import MllamaConfig as ReferenceConfig
from transformers import MllamaForConditionalGeneration

from mmcli.layers.rope import Llama3Scaling
from mmcli.models.load import build_empty
from mmcli.models.mllama import FAMILY
from mmcli.models.mllama.config import MllamaConfig
from mmcli.models.mllama.tiles import arrangements

DECODERS = {
    "11B": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 40, "num_attention_heads": 32,
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    },
    "90B": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 100, "num_attention_heads": 64,
        "cross_attention_layers": list(range(3, 100, 5)),
    },
}  # fmt: skip
PARAMETERS = {"11B": 10_670_220_835, "90B": 88_593_355_323}
SIZES = [("11B", 448), ("11B", 560), ("90B", 560)]  # base, Instruct


def published(size: str, side: int) -> dict:
    """config.json of meta-llama/Llama-3.2-{11B,90B}-Vision and -Instruct."""
    text = {
        "model_type": "mllama_text_model", "vocab_size": 128256, "num_key_value_heads": 8, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": False,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "pad_token_id": 128004,
    } | DECODERS[size]  # fmt: skip
    vision = {
        "model_type": "mllama_vision_model", "hidden_size": 1280, "intermediate_size": 5120, "attention_heads": 16,
        "num_hidden_layers": 32, "num_global_layers": 8, "image_size": side, "patch_size": 14, "max_num_tiles": 4,
        "num_channels": 3, "hidden_act": "gelu", "norm_eps": 1e-5, "intermediate_layers_indices": [3, 7, 15, 23, 30],
        "vision_output_dim": 7680,
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
    }  # fmt: skip
    return {"model_type": "mllama", "image_token_index": 128256, "text_config": text, "vision_config": vision}


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_names_and_shapes_agree_in_both_directions(size):
    raw = published(*size)
    with torch.device("meta"):
        reference = MllamaForConditionalGeneration(ReferenceConfig(**raw))
    config = MllamaConfig.from_hf(raw)
    assert_places(FAMILY.rules(config), build_empty(FAMILY, config), reference, spellings)
    count = sum(parameter.numel() for parameter in reference.parameters())
    assert sum(stage.parameters for stage in stages_of(FAMILY, config)) == count
    assert size[1] != 560 or count == PARAMETERS[size[0]]


def spellings(name: str) -> list[str]:
    """The names that this tensor has in files: today's, and those of the published ones."""
    old = name.removeprefix("model.")
    if old == "lm_head.weight":
        return [name, "language_model.lm_head.weight"]
    return [name, old.replace("language_model.", "language_model.model.", 1)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_published_configurations_and_what_transformers_5_makes_of_them(size):
    raw = published(*size)
    reference = ReferenceConfig(**raw)
    ours = MllamaConfig.from_hf(raw)
    assert_same(ours, reference)
    assert_same(MllamaConfig.from_hf(reference.to_dict()), reference)
    assert ours.decoder.rope_scaling == Llama3Scaling(8.0, 1.0, 4.0, 8192)
    assert (ours.vision.patches, ours.vision.filled_patches) == ((1601, 1608) if size[1] == 560 else (1025, 1032))
    assert ours.vision.output_width == 7680 and ours.stop_ids == {128001, 128008, 128009}


@pytest.mark.parametrize("raw", [{}, {"text_config": {}, "vision_config": {}}], ids=str)
def test_what_a_configuration_leaves_out_has_the_reference_values(raw):
    reference = ReferenceConfig(**raw)
    assert_same(MllamaConfig.from_hf({"model_type": "mllama"} | raw), reference)
    assert_same(MllamaConfig.from_hf(reference.to_dict()), reference)


def assert_same(ours: MllamaConfig, reference: ReferenceConfig) -> None:
    text, vision, decoder, tower = reference.text_config, reference.vision_config, ours.decoder, ours.vision
    assert (decoder.vocabulary, decoder.width, ours.depth) == (
        text.vocab_size,
        text.hidden_size,
        text.num_hidden_layers,
    )
    assert list(ours.cross_layers) == text.cross_attention_layers
    assert (decoder.heads, decoder.key_heads) == (text.num_attention_heads, text.num_key_value_heads)
    assert (decoder.mlp_width, decoder.head_width) == (text.intermediate_size, text.hidden_size // decoder.heads)
    assert (decoder.norm_epsilon, decoder.rope_base) == (text.rms_norm_eps, text.rope_parameters["rope_theta"])
    assert not decoder.tied and not decoder.qkv_bias and decoder.positions == text.max_position_embeddings
    assert (ours.pad, ours.bos, ours.image_token) == (text.pad_token_id, text.bos_token_id, reference.image_token_index)
    assert (tower.width, tower.depth, tower.global_depth) == (
        vision.hidden_size,
        vision.num_hidden_layers,
        vision.num_global_layers,
    )
    assert (tower.mlp_width, tower.heads, tower.most_tiles) == (
        vision.intermediate_size,
        vision.attention_heads,
        vision.max_num_tiles,
    )
    assert (tower.tile_side, tower.patch_size) == (vision.image_size, vision.patch_size)
    assert (list(tower.kept), tower.norm_epsilon) == (vision.intermediate_layers_indices, vision.norm_eps)
    assert [list(one) for one in arrangements(tower.most_tiles)] == vision.supported_aspect_ratios
