"""Speech that is soft, and levels that change: how much of it the detector and the model are given."""

import numpy as np
import pytest
from spoken import example, letters, talk, transcribed

from mmcli.media.audio import RATE
from mmcli.speech.levels import BLOCK, LOUD_ENOUGH, MARGIN, levelled


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return example() / np.abs(example()).max()


def at(level: float, audio: np.ndarray) -> np.ndarray:
    return audio * 10 ** (level / 20)


@pytest.mark.parametrize("level", [-43, -60])
def test_soft_speech_is_transcribed_whole(bundled_audio, speech, level):
    record = transcribed(bundled_audio, talk(at(level, speech)))
    assert "whatyourcountrycandoforyou" in letters(record)
    assert letters(record).startswith("andso") and record.timings["left_out"] < 1


@pytest.mark.parametrize("levels", [(-50, 0), (0, -50)])
def test_a_soft_speaker_beside_a_loud_one(bundled_audio, speech, levels):
    pause = np.zeros(RATE, np.float32)
    record = transcribed(
        bundled_audio, talk(np.concatenate([part for level in levels for part in (at(level, speech), pause)]))
    )
    assert letters(record).count("whatyourcountrycandoforyou") == 2 and record.timings["left_out"] < 3


def test_an_offset_of_the_recorder_hides_nothing(bundled_audio, speech):
    record = transcribed(bundled_audio, talk(at(-45, speech) + 0.4))
    assert "whatyourcountrycandoforyou" in letters(record)


@pytest.mark.parametrize("level", [-20, -50, -80])
def test_soft_noise_is_no_speech(bundled_audio, level):
    noise = np.random.default_rng(0).standard_normal(20 * RATE)
    record = transcribed(bundled_audio, talk(at(level, noise / np.abs(noise).max())))
    assert record.text == "" and record.notes == ("no speech was found in it",)


def test_what_is_loud_enough_stays_as_it_is_and_the_rest_is_lifted(speech):
    loud = np.concatenate([speech[RATE : 2 * RATE]] * 40)
    assert np.array_equal(np.concatenate(list(levelled([loud]))), loud)
    soft = np.concatenate(list(levelled([at(-70, loud)])))
    assert 0.5 * LOUD_ENOUGH < np.abs(soft).max() < 2 * LOUD_ENOUGH
    assert np.array_equal(np.concatenate(list(levelled([np.zeros(RATE, np.float32)]))), np.zeros(RATE, np.float32))


@pytest.mark.parametrize("length", [1, 511, BLOCK, BLOCK + MARGIN, 2 * BLOCK + 2 * MARGIN + 7, 3 * BLOCK])
@pytest.mark.parametrize("size", [1600, 50_000, 10**6])
def test_the_gain_does_not_depend_on_blocks(length, size):
    audio = np.random.default_rng(1).standard_normal(length).astype(np.float32) * 0.001
    audio *= 1 + np.sin(np.arange(length) / 40_000).astype(np.float32)
    blocks = (audio[first : first + size] for first in range(0, length, size))
    found = np.concatenate(list(levelled(blocks)))
    whole = np.concatenate(list(levelled([audio])))
    assert len(found) == length
    np.testing.assert_allclose(found, whole, rtol=1e-3, atol=1e-6)
