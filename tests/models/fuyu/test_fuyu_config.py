"""config.json and preprocessor_config.json: what changes the computation and is not supported is an error."""

import json

import pytest

from mmcli.errors import ModelError
from mmcli.models.fuyu.config import FuyuConfig
from mmcli.models.fuyu.images import ImageSettings


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"text_config": {"model_type": "llama"}}, "model_type to 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act to 'gelu'"),
        ({"text_config": {"hidden_act": "silu"}}, "text_config.hidden_act to 'silu'"),
        ({"num_channels": 4}, "num_channels to 4"),
        ({"num_attention_heads": 60}, "4096 numbers .* among 60 heads"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings to True"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear' rope"),
        ({"partial_rotary_factor": 0.01}, "partial_rotary_factor to 0.01; expected a share"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor to 1.5; expected a number from 0 to 1"),
        ({"qk_layernorm": "yes"}, "qk_layernorm to 'yes'; expected true or false"),
        ({"patch_size": 0}, "patch_size to 0"),
        ({"image_token_id": 1}, "image_token_id to 1; expected a token of its own"),
        ({"vocab_size": 10**9}, "vocab_size to 1000000000"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"text_config": [1]}, "text_config to .1., which is no JSON object"),
    ],
)
def test_values_without_support_are_model_errors(config, message):
    with pytest.raises(ModelError, match=message):
        FuyuConfig.from_hf(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": {"height": 14, "width": 14}}, "patches of 30 × 30"),
        ({"size": {"height": 1000, "width": 1920}}, "1920 × 1000 pixels into patches that do not fit"),
        ({"size": {"shortest_edge": 30}}, "has no size.height"),
        ({"do_resize": False}, "as large as they are"),
        ({"do_pad": False}, "without padding"),
        ({"padding_mode": "reflect"}, "padding_mode to 'reflect'"),
        ({"padding_value": -1}, "padding_value to -1"),
        ({"image_std": 0}, "image_std to 0"),
        ({"resample": 17}, "resample to 17"),
    ],
)
def test_image_settings_without_support_are_model_errors(tmp_path, settings, message):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=message):
        ImageSettings.open(tmp_path, 30)


def test_images_without_settings_are_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"has no preprocessor_config.json"):
        ImageSettings.open(tmp_path, 30)
