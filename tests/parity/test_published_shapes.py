"""The published sizes, built without memory: every tensor of the reference has its place in ours, and the reverse."""

import pytest
import support  # noqa: F401  (makes transformers importable beside a torchaudio built for another CUDA)
import torch
from places import assert_places, stages_of
from transformers import PaliGemmaConfig as ReferenceConfig
from transformers import PaliGemmaForConditionalGeneration

from mmcli.models.paligemma import FAMILY
from mmcli.models.paligemma.config import ABSENT_TEXT, ABSENT_VISION, PaliGemmaConfig

# text_config of google/paligemma-3b-* and google/paligemma2-{3b,10b,28b}-*
TEXTS = {
    "PaliGemma 3B": {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8,
        "num_hidden_layers": 18, "num_key_value_heads": 1, "vocab_size": 257216,
    },
    "PaliGemma 2 3B": {
        "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "vocab_size": 257216, "head_dim": 256,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
    },
    "PaliGemma 2 10B": {
        "model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_attention_heads": 16,
        "num_hidden_layers": 42, "num_key_value_heads": 8, "vocab_size": 257216, "head_dim": 256,
        "query_pre_attn_scalar": 256,
    },
    "PaliGemma 2 28B": {
        "model_type": "gemma2", "hidden_size": 4608, "intermediate_size": 36864, "num_attention_heads": 32,
        "num_hidden_layers": 46, "num_key_value_heads": 16, "vocab_size": 257216, "head_dim": 128,
        "query_pre_attn_scalar": 144,
    },
}  # fmt: skip
PARAMETERS = {"PaliGemma 3B": 2.9, "PaliGemma 2 3B": 3.0, "PaliGemma 2 10B": 9.7, "PaliGemma 2 28B": 27.7}  # billions


def published(text: dict, side: int) -> dict:
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 14,
        "num_attention_heads": 16, "num_hidden_layers": 27, "vision_use_head": False, "image_size": side,
    }  # fmt: skip
    return {
        "model_type": "paligemma", "image_token_index": 257152, "projection_dim": text["hidden_size"],
        "hidden_size": text["hidden_size"], "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
        "text_config": text, "vision_config": vision,
    }  # fmt: skip


@pytest.mark.parametrize("side", [224, 448, 896])
@pytest.mark.parametrize("size", TEXTS)
def test_names_and_shapes_agree_in_both_directions(size, side):
    raw = published(TEXTS[size], side)
    with torch.device("meta"):
        reference = PaliGemmaForConditionalGeneration(ReferenceConfig(**raw))
    assert_places(FAMILY.rules(PaliGemmaConfig.from_hf(raw)), build(raw), reference, spellings)


@pytest.mark.parametrize("size", TEXTS)
def test_inspect_counts_the_parameters_that_the_model_has(size):
    raw = published(TEXTS[size], 224)
    stages = stages_of(FAMILY, PaliGemmaConfig.from_hf(raw))
    total = sum(stage.parameters for stage in stages)
    assert total == sum(tensor.numel() for tensor in build(raw).state_dict().values())
    assert total / 1e9 == pytest.approx(PARAMETERS[size], abs=0.06)
    assert "256 × 1152" in [stage.output for stage in stages]


def test_only_filler_and_the_image_token_are_forbidden_in_the_published_models():
    config = PaliGemmaConfig.from_hf(published(TEXTS["PaliGemma 3B"], 224))
    assert (config.image_token, config.vocabulary_end, config.decoder.vocabulary) == (257152, 257152, 257216)


@pytest.mark.parametrize("kind", ["gemma", "gemma2"])
def test_what_a_configuration_leaves_out_has_the_reference_values(kind):
    raw = {"text_config": {"model_type": kind, "hidden_size": 2048}, "vision_config": {}}
    reference = ReferenceConfig(**raw)
    assert_same(PaliGemmaConfig.from_hf(raw), reference)
    assert_same(PaliGemmaConfig.from_hf(reference.to_dict()), reference)


def test_whole_configurations_left_out_have_the_reference_values():
    reference = ReferenceConfig()
    assert_same(PaliGemmaConfig.from_hf({}), reference)
    assert all(getattr(reference.text_config, key) == value for key, value in ABSENT_TEXT.items())
    assert all(getattr(reference.vision_config, key) == value for key, value in ABSENT_VISION.items())


def assert_same(ours: PaliGemmaConfig, reference: ReferenceConfig) -> None:
    text, vision, decoder = reference.text_config, reference.vision_config, ours.decoder
    assert decoder.vocabulary == text.vocab_size and decoder.width == text.hidden_size
    assert decoder.depth == text.num_hidden_layers and decoder.mlp_width == text.intermediate_size
    assert (decoder.heads, decoder.key_heads) == (text.num_attention_heads, text.num_key_value_heads)
    assert decoder.head_width == text.head_dim and decoder.norm_epsilon == text.rms_norm_eps
    assert decoder.rope_base == text.rope_parameters["rope_theta"]
    assert decoder.logit_softcap == getattr(text, "final_logit_softcapping", None)
    assert decoder.attention_softcap == getattr(text, "attn_logit_softcapping", None)
    assert decoder.query_scale == getattr(text, "query_pre_attn_scalar", text.head_dim) ** -0.5
    assert ours.sliding_window == getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None) or []
    assert list(decoder.sliding_layers) == [kind == "sliding_attention" for kind in kinds]
    assert (ours.vision.width, ours.vision.depth) == (vision.hidden_size, vision.num_hidden_layers)
    assert (ours.vision.mlp_width, ours.vision.heads) == (vision.intermediate_size, vision.num_attention_heads)
    assert (ours.vision.image_size, ours.vision.patch_size) == (vision.image_size, vision.patch_size)
    assert ours.vision.norm_epsilon == vision.layer_norm_eps
    assert ours.image_token == reference.image_token_index


def build(raw: dict) -> torch.nn.Module:
    with torch.device("meta"):
        return FAMILY.build(FAMILY.read_config(raw))


def spellings(name: str) -> list[str]:
    """The names that this tensor has had in files: today's in memory, and those of 2024."""
    old = name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)
    old = old.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return [name, "language_model.lm_head.weight" if name == "lm_head.weight" else old]
