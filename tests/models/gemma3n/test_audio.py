"""Gemma 3n's audio encoder: its configuration, and what `inspect` shows."""

import pytest
import torch

from mmcli.errors import ModelError
from mmcli.models.gemma3n.audio import audio_stages, read_conformer
from mmcli.models.gemma3n.conformer import ConformerEncoder


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_size": 1537},
        {"hidden_size": "wide"},
        {"hidden_size": True},
        {"conf_num_attention_heads": 0},
        {"conf_attention_context_left": -1},
        {"conf_attention_logit_cap": "none"},
        {"sscp_conv_channel_size": [128]},
        {"sscp_conv_channel_size": 128},
        {"sscp_conv_kernel_size": [3, 3]},
        {"sscp_conv_stride_size": [[2, 2], [0, 2]]},
        {"sscp_conv_stride_size": [[2, 2], [2, 2], [2, 2]]},
        {"input_feat_size": 1, "sscp_conv_kernel_size": [[3, 9], [3, 3]]},
    ],
    ids=str,
)
def test_what_is_no_configuration_is_refused(changed):
    with pytest.raises(ModelError):
        read_conformer(changed)


def test_null_is_as_good_as_left_out():
    assert read_conformer({"hidden_size": None, "rms_norm_eps": None}) == read_conformer({})


def test_whole_numbers_may_stand_for_broken_ones():
    assert read_conformer({"gradient_clipping": 10}).limit == 10


def stages_of(raw):
    config = read_conformer(raw)
    with torch.device("meta"):
        return audio_stages(config, ConformerEncoder(config))


def test_stages_say_what_the_encoder_reads():
    audio, subsampling, encoder = stages_of({})
    assert (audio.output, subsampling.output, encoder.output) == ("2997 × 128", "750 × 1536", "188 × 1536")
    assert "each frame attends to itself and 12 before it" in encoder.notes
    assert audio.notes == ("up to 30 s at 16 kHz", "a frame every 10 ms")
    ahead = stages_of({"conf_attention_context_right": 2})[2]
    assert "each frame attends to itself and 12 before it and 2 behind it" in ahead.notes
