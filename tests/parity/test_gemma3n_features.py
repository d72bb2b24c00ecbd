"""Gemma 3n's front end against transformers' feature extractor."""

import foreign  # noqa: F401 (before transformers)
import numpy as np
import pytest
import torch
from transformers import Gemma3nAudioFeatureExtractor

from mmcli.models.gemma3n.features import PUBLISHED, log_mel, mel_filters, read_settings

EXACT = {"rtol": 1e-6, "atol": 1e-6}
# Up to 512 samples there is no frame; 513 fill five blocks of 128. From 640 on to 800 the hop begins a second frame.
LENGTHS = [1, 127, 160, 512, 513, 640, 641, 799, 16_000, 112_013, 479_873, 480_000]


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([samples, seed]).standard_normal(samples).astype(np.float32) / 10


def reference(audio: np.ndarray, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    found = Gemma3nAudioFeatureExtractor(**settings)([audio], return_tensors="pt")
    return found["input_features"], found["input_features_mask"].bool()


def assert_same(audio: np.ndarray) -> None:
    for ours, theirs in zip(log_mel([audio]), reference(audio), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("samples", LENGTHS)
def test_noise_of_any_length(samples):
    assert_same(noise(samples))


@pytest.mark.parametrize("samples", [1, 700, 30_001])
def test_silence_and_next_to_silence(samples):
    assert_same(np.zeros(samples, np.float32))
    assert_same(noise(samples) * np.float32(1e-6))


def test_a_tone_at_full_scale_whose_quiet_bins_must_be_right_too():
    assert_same(np.sin(np.arange(20_011) * (2 * np.pi * 440 / 16_000)).astype(np.float32))


def test_doubles_and_whole_numbers_are_read_as_they_are():
    for audio in (noise(3000).astype(np.float64), np.arange(-300, 500, dtype=np.int16)):
        torch.testing.assert_close(log_mel([audio])[0], reference(audio.astype(np.float32))[0], **EXACT)


def test_nothing_has_no_frames():
    features, valid = log_mel([np.zeros(0, np.float32)])
    assert features.shape == (1, 0, 128) and valid.shape == (1, 0)


def test_the_filters():
    np.testing.assert_allclose(mel_filters(PUBLISHED), Gemma3nAudioFeatureExtractor().mel_filters, rtol=1e-12, atol=0)


SETTINGS = [
    {},
    {"preemphasis_htk_flavor": False},
    {"preemphasis": 0.0, "preemphasis_htk_flavor": False},
    {"preemphasis": 0.5, "input_scale_factor": 3.0, "mel_floor": 0.01},
    {"fft_overdrive": False, "min_frequency": 0.0, "max_frequency": 8000.0},
    {"frame_length_ms": 20.0, "hop_length_ms": 7.5, "feature_size": 40},
    {"per_bin_mean": np.linspace(-9, 1, 128).tolist(), "per_bin_stddev": np.linspace(1, 4, 128).tolist()},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("samples", [5_000, 5_119])
def test_settings_of_a_checkpoint_are_followed(settings, samples, tmp_path):
    extractor = Gemma3nAudioFeatureExtractor(**settings)
    folder = tmp_path
    extractor.save_pretrained(folder)
    again = Gemma3nAudioFeatureExtractor.from_pretrained(folder)
    if "frame_length_ms" in settings:  # which the reference does not save, so that it reads another front end back
        (folder / "preprocessor_config.json").write_text(str(settings).replace("'", '"'))
        again = extractor
    ours, _ = log_mel([noise(samples)], read_settings(folder, extractor.feature_size))
    theirs = again([noise(samples)], return_tensors="pt")["input_features"]
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_a_batch_of_one_length_is_the_reference_batch():
    audios = [noise(9_000, seed) for seed in range(3)]
    theirs = Gemma3nAudioFeatureExtractor()(audios, return_tensors="pt")
    features, valid = log_mel(audios)
    torch.testing.assert_close(features, theirs["input_features"], **EXACT)
    torch.testing.assert_close(valid, theirs["input_features_mask"].bool())


def test_a_shorter_audio_of_a_batch_has_the_frames_that_it_has_alone():
    """The reference gives it more there: those that begin in its last samples and end in the silence behind it."""
    audios = [noise(2_000), noise(9_000), noise(300)]
    features, valid = log_mel(audios)
    for row, mask, audio in zip(features, valid, audios, strict=True):
        alone = reference(audio)[0][0]
        torch.testing.assert_close(row[: len(alone)], alone, **EXACT)
        assert mask.tolist() == [True] * len(alone) + [False] * (len(mask) - len(alone))
        assert not row[len(alone) :].any()
    together = Gemma3nAudioFeatureExtractor()(audios, return_tensors="pt")
    gained = together["input_features_mask"].sum(1) - valid.sum(1)
    assert gained.tolist() == [3, 0, 2]
    torch.testing.assert_close(features[0, :10], together["input_features"][0, :10], **EXACT)
