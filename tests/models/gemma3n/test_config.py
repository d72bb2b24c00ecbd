"""What a Gemma 3n's config.json may say. That what it leaves out is as in transformers is held by tests/parity."""

import pytest

from mmcli.errors import ModelError
from mmcli.models.gemma3n.config import Gemma3nConfig


@pytest.mark.parametrize(
    "raw, message",
    [
        ({"hidden_activation": "gelu"}, "hidden_activation to 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"altup_active_idx": 1}, "altup_active_idx"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "stretches its positions ('yarn' rope)"),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2}}}, "('linear' rope)"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "do not tell its two kinds of layers apart"),
        ({"intermediate_size": [8192] * 30}, "intermediate_size to [8192,"),
        ({"layer_types": ["full_attention"] * 34}, "expected a list of 35"),
        ({"layer_types": ["chunked_attention"] * 35}, "layer_types beside full_ and sliding_attention"),
        ({"activation_sparsity_pattern": [1.0] * 35}, "sparsities beyond 0 … 1"),
        ({"num_kv_shared_layers": 35}, "the last 35 look at the keys of earlier ones"),
        ({"num_kv_shared_layers": 31}, "there are none of their kind"),  # no full layer among the first four
        ({"altup_num_inputs": 1}, "a single stream"),
        ({"num_key_value_heads": 3}, "cannot be split among 3"),
        ({"vocab_size": 262_500}, "do not fill its vocabulary of 262500 up"),
        ({"hidden_size": "wide"}, "text_config.hidden_size to 'wide'; expected a whole number"),
        ({"num_hidden_layers": 10**7}, "text_config.num_hidden_layers to 10000000; expected a whole number from 1"),
        ({"altup_correct_scale": 1}, "altup_correct_scale to 1; expected true or false"),
        ({"final_logit_softcapping": 0}, "final_logit_softcapping to 0; expected a number above 0"),
        ({"eos_token_id": [1, -2]}, "eos_token_id to [1, -2]"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_text_configuration_that_is_not_supported_says_why(raw, message):
    with pytest.raises(ModelError) as error:
        Gemma3nConfig.from_hf({"text_config": raw})
    assert message in str(error.value)


@pytest.mark.parametrize(
    "raw, message",
    [
        ({"vision_config": {"architecture": "resnet50"}}, "architecture to 'resnet50'"),
        ({"vision_config": {"hidden_size": 1024}}, "hidden_size to 1024"),
        ({"vision_config": {"model_args": {"depth": 3}}}, "model_args"),
        ({"vision_soft_tokens_per_image": 64}, "vision_soft_tokens_per_image to 64"),
        ({"vision_config": {"vocab_offset": 262_300}}, "do not fill"),
        ({"audio_config": {"conf_num_attention_heads": 7}}, "cannot be split among 7 heads"),
        ({"audio_config": {"sscp_conv_kernel_size": 3}}, "audio_config.sscp_conv_kernel_size to 3"),
    ],
    ids=str,
)
def test_towers_that_are_not_supported_say_why(raw, message):
    with pytest.raises(ModelError) as error:
        Gemma3nConfig.from_hf(raw)
    assert message in str(error.value)


def test_a_softcap_of_null_is_none_and_other_nulls_are_left_out():
    text = Gemma3nConfig.from_hf({"text_config": {"final_logit_softcapping": None, "sliding_window": None}}).text
    assert text.logit_softcap is None and text.window == 512


def test_stop_ids_are_those_of_the_whole_or_else_of_the_decoder():
    assert Gemma3nConfig.from_hf({"eos_token_id": [1, 106]}).stop_ids == {1, 106}
    assert Gemma3nConfig.from_hf({"text_config": {"eos_token_id": 7}}).stop_ids == {7}


def test_a_decoder_alone_has_no_senses():
    config = Gemma3nConfig.from_hf({"model_type": "gemma3n_text", "num_hidden_layers": 30, "num_kv_shared_layers": 10})
    assert config.vision is None and config.audio is None and config.text.depth == 30
