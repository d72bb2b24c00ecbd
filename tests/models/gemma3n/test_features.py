"""Gemma 3n's front end: what a checkpoint may set, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmcli.errors import ModelError
from mmcli.models.gemma3n.features import LONGEST, PUBLISHED, MelSettings, log_mel, read_settings

# What google/gemma-3n-* ship: settings of images and of recordings in one file.
SHIPPED = {
    "dither": 0.0, "feature_extractor_type": "Gemma3nAudioFeatureExtractor", "feature_size": 128, "fft_length": 1024,
    "fft_overdrive": True, "frame_length": 512, "hop_length": 160, "input_scale_factor": 1.0, "max_frequency": 7600.0,
    "mel_floor": 1e-05, "min_frequency": 125.0, "padding_side": "right", "padding_value": 0.0, "per_bin_mean": None,
    "per_bin_stddev": None, "preemphasis": 0.97, "preemphasis_htk_flavor": True, "sampling_rate": 16000,
    "do_resize": True, "image_processor_type": "SiglipImageProcessorFast", "size": {"height": 768, "width": 768},
}  # fmt: skip


def settings(folder: Path, name: str, content: object, mels: int = 128) -> MelSettings:
    (folder / name).write_text(json.dumps(content))
    return read_settings(folder, mels)


def test_what_is_shipped_is_what_is_built_in(tmp_path):
    assert read_settings(tmp_path, 128) == PUBLISHED
    assert settings(tmp_path, "preprocessor_config.json", SHIPPED) == PUBLISHED


def test_settings_of_the_whole_processor_come_first(tmp_path):
    settings(tmp_path, "preprocessor_config.json", SHIPPED | {"mel_floor": 0.5})
    assert settings(tmp_path, "processor_config.json", {"audio_seq_length": 188}).floor == 0.5
    nested = {"feature_extractor": SHIPPED | {"mel_floor": 0.25}}
    assert settings(tmp_path, "processor_config.json", nested).floor == 0.25


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"sampling_rate": 8000}, "sampling_rate to 8000"),
        ({"dither": 1e-4}, "dither"),  # noise: no answer could be repeated
        ({"padding_side": "left"}, "padding_side"),
        ({"feature_size": 80}, "feature_size to 80; this model was trained with 128"),
        ({"frame_length": 400}, "frame_length to 400, but by its other settings it is 512"),
        ({"fft_overdrive": False}, "fft_length to 1024, but"),
        ({"mel_floor": "low"}, "mel_floor to 'low'; expected a number"),
        ({"mel_floor": [1, 2]}, "mel_floor"),
        ({"per_bin_mean": [1.0, 2.0]}, "per_bin_mean to .*; expected a list of 128"),
        ({"frame_length_ms": 0}, "frame_length_ms to 0; expected a number from 1 to 1000"),
        ({"hop_length_ms": 1e-9}, "hop_length_ms"),
        ({"min_frequency": 8000.0}, "max_frequency to 7600.0; expected a number above min_frequency, 8000"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(changed, said, tmp_path):
    with pytest.raises(ModelError, match=said) as refused:
        settings(tmp_path, "preprocessor_config.json", SHIPPED | changed)
    assert "preprocessor_config.json" in str(refused.value)


def test_settings_that_are_no_settings_are_refused(tmp_path):
    with pytest.raises(ModelError, match="processor_config.json holds no settings"):
        settings(tmp_path, "processor_config.json", {"feature_extractor": "Gemma3nAudioFeatureExtractor"})


@pytest.mark.parametrize(
    "samples, frames", [(0, 0), (1, 0), (512, 0), (513, 1), (640, 1), (641, 2), (16_000, 97), (LONGEST, 2997)]
)
def test_frames_of_a_recording(samples, frames):
    features, valid = log_mel([np.zeros(samples, np.float32)])
    assert PUBLISHED.frames(samples) == frames
    assert features.shape == (1, frames, 128) and valid.shape == (1, frames) and valid.all()


def test_no_recordings_are_no_rows():
    features, valid = log_mel([])
    assert features.shape == (0, 0, 128) and valid.shape == (0, 0)


def test_a_audio_that_is_too_long_is_not_cut_off_in_silence():
    with pytest.raises(ValueError, match="480001"):
        log_mel([np.zeros(LONGEST + 1, np.float32)])


def test_the_audio_itself_is_left_as_it_is():
    audio = np.ones(2000, np.float32)
    log_mel([audio])
    assert (audio == 1).all()
