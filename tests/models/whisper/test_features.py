"""Log-mel windows as a GPU computes them, all at once, are those of a CPU, one by one."""

import numpy as np
import pytest
import torch

from mmcli.models.whisper import features


@pytest.mark.parametrize("mels", [80, 128])
def test_windows_computed_at_once_are_those_computed_one_by_one(mels):
    draw = np.random.default_rng(0)
    lengths = [0, 1, 159, 16_000, 47_999, 48_000]  # of windows of 300 frames
    audios = [(draw.standard_normal(length) * 0.1).astype(np.float32) for length in lengths]
    samples = torch.zeros(len(audios), 300 * features.HOP)
    for row, audio in zip(samples, audios, strict=True):
        row[: len(audio)] = torch.from_numpy(audio)
    found = features._all_at_once(samples, *features._tables(mels))
    torch.testing.assert_close(found, features.log_mel(audios, mels, 300), rtol=0, atol=2e-5)
    if torch.cuda.is_available():
        there = features.log_mel(audios, mels, 300, torch.device("cuda")).cpu()
        torch.testing.assert_close(there, found, rtol=0, atol=1e-4)
