"""Where recordings are cut; of speech itself only what the cutter sees of it: probabilities and loudness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcli.speech.windows import FRAME, LONGEST_GAP, PAD, RATE, Cutter, Speech, _pieces, framed

LIMIT = int(30 * RATE) // FRAME


def spans(probabilities, loudness=None, limit=LIMIT) -> list[tuple[int, int]]:
    cutter = Cutter(limit)
    found = []
    for probability, level in zip(probabilities, loudness or [1.0] * len(probabilities), strict=True):
        found += cutter.feed(probability, level)
    return [*found, *cutter.end()]


def speech(*lengths: int) -> list[float]:
    """Frames: a pause, speech, a pause, speech, …"""
    return [0.95 if i % 2 else 0.01 for i, length in enumerate(lengths) for _ in range(length)]


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ((500,), []),  # silence
        ((0, 100), [(0, 100)]),  # nothing to pad with
        ((100, 50, 100), [(100 - PAD, 150 + PAD)]),
        ((100, 1, 100), []),  # a click
        ((100, 50, 3, 50, 100), [(100 - PAD, 203 + PAD)]),  # a pause so short that it is none
        ((100, 50, LONGEST_GAP - 1, 50, 100), [(90, 100 + 100 + LONGEST_GAP - 1 + PAD)]),  # one window holds both
        # a longer pause is left out
        ((100, 50, LONGEST_GAP + 9, 50, 100), [(90, 160), (149 + LONGEST_GAP, 219 + LONGEST_GAP)]),
    ],
)
def test_speech_is_padded_and_long_pauses_are_left_out(lengths, wanted):
    assert spans(speech(*lengths)) == wanted


def test_a_full_window_is_cut_at_the_longest_pause_near_its_end():
    first, second = spans(speech(0, 200, 30, 400, 20, 60, 40, 60, 8, 200, 300))
    # Of the pauses of 40 and 8 frames near the end the longer one, though the shorter leaves the window fuller.
    assert first == (0, 200 + 30 + 400 + 20 + 60 + PAD)
    assert second[0] == 750 - PAD


def test_a_stretch_without_a_pause_is_cut_at_its_quietest_place():
    loudness = [1.0] * 1500
    loudness[700:705] = [0.1] * 5
    loudness[200:205] = [0.0] * 5  # quieter, but it would make a short window
    cut = spans([0.9] * 1500, loudness)
    assert cut == [(0, 702), (702, 1500)]


def test_doubt_neither_begins_speech_nor_ends_it():
    assert spans([0.3] * 100) == []
    assert spans([0.9] * 50 + [0.3] * 100 + [0.9] * 50) == [(0, 200)]


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 260)), max_size=30),
    st.integers(60, 300),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_all_speech_is_in_exactly_one_window(stretches, limit, random):
    probabilities = speech(*(length for pair in stretches for length in pair))
    cut = spans(probabilities, [random.random() for _ in probabilities], limit)
    covered = [frame for first, end in cut for frame in range(first, end)]
    assert covered == sorted(set(covered))  # nothing twice, and in order
    assert all(0 < end - first <= limit for first, end in cut)
    assert all(end <= len(probabilities) for _, end in cut)
    inside = set(covered)
    frames = range(len(probabilities))
    # A click may be lost; so may what is left of a stretch behind a cut, if it is no longer than a click.
    lost = [i for i in frames if probabilities[i] > 0.5 and i not in inside]
    assert all(not (i - 1 in lost and i + 1 in lost) for i in lost)


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 50))
def test_pieces_are_the_same_samples(lengths, size):
    blocks, at = [], 0
    for length in lengths:
        blocks.append(np.arange(at, at + length, dtype=np.float32))
        at += length
    pieces = list(_pieces(blocks, size))
    assert np.concatenate([np.zeros(0), *pieces]).tolist() == list(range(at))
    assert all(len(piece) == size for piece in pieces[:-1]) and all(0 < len(piece) <= size for piece in pieces)


class Loud:
    """A detector that takes for speech what is loud."""

    def __call__(self, frames, state):
        return (frames[:, 64:].abs().mean(dim=1) > 0.1).float(), state


@pytest.mark.parametrize("block", [160, 5000, 480_000])
def test_a_window_holds_the_audio_at_its_place(block):
    rng = np.random.default_rng(0)
    loudness = np.repeat(rng.random(40) > 0.6, 80_000)
    audio = (loudness * rng.uniform(0.5, 1, len(loudness))).astype(np.float32)[:-77]
    speech = Speech((audio[at : at + block] for at in range(0, len(audio), block)), Loud(), start=100.0)
    windows = list(speech.windows())
    for window in windows:
        first = round((window.start - 100) * RATE)
        assert np.array_equal(window.audio, audio[first : first + len(window.audio)])
    assert speech.seconds == len(audio) / RATE and speech.count == len(windows) > 2
    assert speech.left_out == pytest.approx(speech.seconds - sum(window.end - window.start for window in windows))


@pytest.mark.parametrize(("seconds", "count"), [(1, 1), (28, 1), (31, 2), (59, 2)])
def test_a_window_holds_up_to_thirty_seconds(seconds, count):
    """As much as Whisper reads at once: each cut costs context. Where it is equally loud, a cut is in the middle."""
    audio = np.zeros(70 * RATE, np.float32)
    audio[RATE : (1 + seconds) * RATE] = np.tile(np.float32((0.5, -0.5)), seconds * RATE // 2)
    windows = list(Speech([audio], Loud()).windows())
    assert len(windows) >= count and (len(windows) == count or seconds == 59)
    assert all(len(window.audio) <= 30 * RATE for window in windows)
    assert sum(len(window.audio) for window in windows) >= seconds * RATE


@pytest.mark.parametrize("size", [FRAME, 7 * FRAME, 100 * FRAME])
def test_the_detector_sees_the_same_frames_in_pieces_as_in_the_whole(size):
    half = np.random.default_rng(0).uniform(0.5, 1, 50 * FRAME).astype(np.float32)
    audio = np.stack((half, -half), 1).reshape(-1)  # without an offset, and loud: nothing is done to its level
    whole, last = framed(audio, np.zeros(64, np.float32))
    parts, before = [], np.zeros(64, np.float32)
    for at in range(0, len(audio), size):
        part, before = framed(audio[at : at + size], before)
        parts.append(part)
    assert np.array_equal(np.concatenate(parts), whole) and np.array_equal(before, last)
    assert np.array_equal(whole[1, :64], audio[FRAME - 64 : FRAME])


def test_memory_does_not_grow_with_the_recording():
    """Ten minutes of speech without a pause: no more than a window and a block are held."""
    import tracemalloc

    block = 0.5 * np.tile(np.float32((1, -1)), 8_000)
    tracemalloc.start()
    count = sum(1 for _ in Speech((block for _ in range(600)), Loud()).windows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count >= 20
    assert peak < 12e6  # ten minutes have 38 MB


@pytest.mark.filterwarnings("error")
def test_samples_as_large_as_floats_can_be_are_cut_as_others_are():
    loud = np.tile(np.float32((3e38, -3e38)), 40 * RATE // 2)
    windows = list(Speech([loud], Loud()).windows())
    assert sum(len(window.audio) for window in windows) >= 40 * RATE
