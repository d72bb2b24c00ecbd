"""Long recordings in parts: none too long, nothing lost, cut where it is quiet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcli.speech.pauses import REACH, cut

RATE = 16_000


@given(seconds=st.floats(0, 200), seed=st.integers(0, 9), longest=st.sampled_from([20.0, 30.0]))
def test_no_part_is_too_long_and_joined_they_are_the_whole(seconds, seed, longest):
    samples = np.random.default_rng(seed).standard_normal(int(seconds * RATE), np.float32)
    parts = cut(samples, longest)
    assert all(len(part) <= longest * RATE for part in parts)
    assert np.array_equal(np.concatenate(parts), samples)
    if len(parts) > 1:  # and none is a mere rest
        assert min(map(len, parts)) >= (longest / 2 - REACH) * RATE - 1


def test_what_fits_stays_in_one_piece():
    [part] = cut(np.ones(30 * RATE, np.float32), 30.0)
    assert len(part) == 30 * RATE


@pytest.mark.parametrize("pause", [17.0, 20.0, 23.5])
def test_it_is_cut_in_a_pause(pause):
    samples = np.random.default_rng(0).standard_normal(40 * RATE, np.float32)
    samples[int(pause * RATE) : int((pause + 0.5) * RATE)] *= 0.01
    first, _ = cut(samples, 30.0)
    assert pause < len(first) / RATE < pause + 0.5
