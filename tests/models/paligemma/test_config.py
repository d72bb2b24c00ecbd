"""config.json: what changes the computation and is not supported must never pass in silence."""

import pytest

from mmcli.errors import ModelError
from mmcli.models.paligemma.config import PaliGemmaConfig


def raw(second: bool = False, text=(), vision=(), **top) -> dict:
    text_config = {"model_type": "gemma2" if second else "gemma", "hidden_size": 2048} | dict(text)
    return {"text_config": text_config, "vision_config": {"hidden_size": 768} | dict(vision)} | top


@pytest.mark.parametrize(
    "config, message",
    [
        (raw(text={"model_type": "llama"}), "'llama'"),
        (raw(text={"hidden_act": "silu"}), "hidden_act to 'silu'"),
        (raw(second=True, text={"hidden_activation": "relu"}), "hidden_activation to 'relu'"),
        (raw(vision={"hidden_act": "quick_gelu"}), "hidden_act to 'quick_gelu'"),
        (raw(vision={"model_type": "clip_vision_model"}), "clip_vision_model"),
        (raw(vision={"num_channels": 4}), "num_channels to 4"),
        (raw(vision={"image_size": [224, 448]}), "only squares"),
        (raw(vision={"num_attention_heads": 7}), "among 7 heads"),
        (raw(text={"attention_bias": True}), "attention_bias to True"),
        (raw(text={"rope_scaling": {"type": "linear", "factor": 2.0}}), "'linear' rope"),
        (raw(text={"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}), "'yarn' rope"),
        (raw(second=True, text={"layer_types": ["full_attention"]}), "layer_types"),
        (raw(second=True, text={"layer_types": ["chunked_attention"] * 26}), "layer_types"),
        (raw(tie_word_embeddings=False), "tie_word_embeddings"),
        (raw(projection_dim=1024), "projects pictures to 1024 numbers .* 2048 wide"),
        (raw(text={"vocab_size": "many"}), "text_config.vocab_size to 'many'; expected a whole number"),
        (raw(vision={"image_size": True}), "vision_config.image_size to True"),
        (raw(text={"num_hidden_layers": 10**7}), "num_hidden_layers to 10000000; expected .* from 1 to 256"),
        (raw(text={"hidden_size": 10**12}), "hidden_size to 1000000000000"),
        (raw(text={"rms_norm_eps": float("nan")}), "rms_norm_eps to nan"),
        (raw(text={"head_dim": 64.5}), "head_dim to 64.5"),
        ({"text_config": [1]}, "text_config to .1., which is no JSON object"),
    ],
)
def test_values_without_support_are_model_errors(config, message):
    with pytest.raises(ModelError, match=message):
        PaliGemmaConfig.from_hf(config)


@pytest.mark.parametrize(
    "text, expected",
    [
        ({"rope_theta": 5e5}, 5e5),  # as files before 2025 say it
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 2e4}}, 2e4),
        ({"rope_scaling": None}, 1e4),
        ({}, 1e4),
    ],
)
def test_the_base_of_the_positions_under_its_old_and_new_name(text, expected):
    assert PaliGemmaConfig.from_hf(raw(text=text)).decoder.rope_base == expected


@pytest.mark.parametrize(
    "config, expected",
    [
        (raw(), {1}),
        (raw(eos_token_id=5), {5}),
        (raw(text={"eos_token_id": [1, 107]}), {1, 107}),
        (raw(eos_token_id=1, text={"eos_token_id": [1, 107]}), {1}),
    ],
)
def test_stop_tokens(config, expected):
    assert PaliGemmaConfig.from_hf(config).stop_ids == expected


@pytest.mark.parametrize(
    "rows, image, end",
    [
        (257216, 257152, 257152),  # the published ones: 64 filler rows, of which the first is <image>
        (257153, 257152, 257153),  # no filler; <image> itself is forbidden anyway
        (99, 4, 99),  # <image> in the middle: everything behind it is a word
        (1280, 40, 1280),
    ],
)
def test_only_rows_that_fill_the_table_up_count_as_filler(rows, image, end):
    config = PaliGemmaConfig.from_hf(raw(text={"vocab_size": rows}, image_token_index=image))
    assert config.vocabulary_end == end


def test_a_window_of_none_is_no_window():
    config = PaliGemmaConfig.from_hf(raw(second=True, text={"sliding_window": None}))
    assert config.sliding_window is None and not any(config.decoder.sliding_layers)
