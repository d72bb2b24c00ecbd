"""config.json: what changes the computation and is not supported must never pass in silence."""

import pytest
import smolvlm_folders as folders

from mmcli.errors import ModelError
from mmcli.models.smolvlm.config import SmolVLMConfig


def raw(text=(), vision=(), **top) -> dict:
    usual = folders.tiny_raw("smolvlm")
    return usual | {"text_config": usual["text_config"] | dict(text)} | {
        "vision_config": usual["vision_config"] | dict(vision)
    } | top  # fmt: skip


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (raw(text={"model_type": "qwen2"}), "'qwen2'; supported is llama"),
        (raw(text={"hidden_act": "gelu"}), "text_config.hidden_act to 'gelu'"),
        (raw(text={"qk_layer_norms": True}), "qk_layer_norms to True"),
        (raw(text={"use_resampler": True}), "use_resampler to True"),
        (raw(use_resampler=True), "use_resampler to True"),
        (raw(text={"attention_bias": True}), "attention_bias to True"),
        (raw(text={"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}), "'yarn' rope"),
        (raw(text={"num_key_value_heads": 4}), "6 heads among 4"),
        (raw(text={"head_dim": 7}), "7 numbers wide"),
        (raw(text={"vocab_size": "many"}), "vocab_size to 'many'"),
        (raw(text={"num_hidden_layers": 10**7}), "num_hidden_layers to 10000000; expected .* from 1 to 256"),
        (raw(vision={"model_type": "clip_vision_model"}), "clip_vision_model"),
        (raw(vision={"hidden_act": "quick_gelu"}), "quick_gelu"),
        (raw(vision={"num_channels": 1}), "num_channels to 1"),
        (raw(vision={"image_size": [32, 64]}), "only squares"),
        (raw(vision={"patch_size": 64}), "do not fit"),
        (raw(vision={"num_attention_heads": 5}), "among 5 heads"),
        (raw(scale_factor=3), "4 rows of patches, of which 3 cannot be put together"),
        (raw(scale_factor=0), "scale_factor to 0"),
        (raw(image_token_id=-1), "image_token_id to -1"),
        (raw(tie_word_embeddings="yes"), "tie_word_embeddings to 'yes'"),
        (raw() | {"text_config": [1]}, "text_config to .1., which is no JSON object"),
    ],
)
def test_values_without_support_are_model_errors(config, message):
    with pytest.raises(ModelError, match=message):
        SmolVLMConfig.from_hf(config)


def test_a_decoder_that_is_left_out_is_llamas_with_another_epsilon():
    assert SmolVLMConfig.from_hf({"scale_factor": 1}).decoder.norm_epsilon == 1e-5
    assert SmolVLMConfig.from_hf({"scale_factor": 1, "text_config": {}}).decoder.norm_epsilon == 1e-6


@pytest.mark.parametrize("config", [raw(eos_token_id=5), raw(text={"eos_token_id": [5]})])
def test_stop_tokens(config):
    assert SmolVLMConfig.from_hf(config).stop_ids == {5}
