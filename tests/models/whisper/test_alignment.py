"""Times of words: the path, the smoothing, and how tokens become words."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcli.models.whisper.alignment import alignment_heads, smooth, starts, token_times
from mmcli.models.whisper.segments import TokenSegment
from mmcli.models.whisper.vocabulary import Special
from mmcli.models.whisper.words import join_punctuation, split_words, trim, with_words
from mmcli.types import Word


def cheapest(cost: np.ndarray) -> float:
    """The cost of the best path, written out cell by cell."""
    rows, frames = cost.shape
    total = np.full((rows + 1, frames + 1), np.inf)
    total[0, 0] = 0
    for i in range(rows):
        for j in range(frames):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[-1, -1]


def test_a_hand_made_matrix_gives_its_steps():
    matrix = np.full((4, 12), -0.1)
    for row, (start, end) in enumerate([(0, 3), (3, 4), (4, 9), (9, 12)]):
        matrix[row, start:end] = 1
    assert starts(-matrix).tolist() == [0, 3, 4, 9]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 12), st.integers(0, 10_000))
def test_the_path_is_the_cheapest(rows, frames, seed):
    cost = np.random.default_rng(seed).standard_normal((rows, frames))
    found = starts(cost)
    assert found[0] == 0 and (np.diff(found) >= 0).all()
    # The cheapest path that enters its rows there costs as much as the cheapest of all.
    barred = cost.copy()
    for row in range(rows):
        barred[row, : found[row]] = np.inf
        if row + 1 < rows:
            barred[row, found[row + 1] + 1 :] = np.inf
    assert cheapest(barred) == pytest.approx(cheapest(cost))


def test_no_line_of_it_runs_once_a_cell():
    cost, lines = np.random.default_rng(0).standard_normal((224, 1500)), 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    starts(cost)
    sys.settrace(before)
    assert 0 < lines < cost.size / 4  # a loop over the 336,000 cells would take seconds


def test_smoothing_is_a_median_over_seven_frames():
    weights = torch.tensor([[0.0, 0, 0, 9, 0, 0, 1, 1, 1, 1, 1, 1]])
    assert smooth(weights)[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert torch.equal(smooth(weights[:, :3]), weights[:, :3])  # too short to be smoothed


def special(heads):
    return Special(1, 2, {}, None, None, None, None, 3, (), (), 50, heads)


def test_heads_are_those_of_the_checkpoint_or_the_upper_half_and_it_says_which():
    assert alignment_heads(special(((1, 2),)), 4, 2) == (((1, 2),), "alignment heads")
    heads, source = alignment_heads(special(None), 4, 2)
    assert heads == ((2, 0), (2, 1), (3, 0), (3, 1)) and source == "upper half of layers"


def test_tokens_get_rising_times_inside_the_audio(whisper):
    import whisper_folders

    model, processor = whisper.model, whisper.processor
    encoded = model.encode(processor.features([whisper_folders.audio()]))
    prompt = processor.prompt("transcribe", "en", None, False)
    heads, _ = alignment_heads(processor.special, 3, 3)
    times, probabilities = token_times(model, encoded, prompt, [30, 40, 50, 60], processor.special.end, heads, 1.3)
    assert len(times) == 5 and (np.diff(times) >= 0).all() and times[0] == 0 and times[-1] <= 1.3
    assert len(probabilities) == 4 and ((probabilities > 0) & (probabilities < 1)).all()


PIECES = {1: " he", 2: "llo", 3: ",", 4: " wor", 5: "ld", 6: "!", 7: ' "', 8: "Hi", 9: "你", 10: "好"}


def decode(ids):
    return "".join(PIECES[id] for id in ids)


def test_words_begin_with_spaces_and_characters_are_words_where_there_are_none():
    assert split_words([1, 2, 3, 4, 5, 6], decode, "en") == [[1, 2], [3], [4, 5], [6]]
    assert split_words([9, 10], decode, "zh") == [[9], [10]]


def test_a_character_of_several_tokens_stays_whole():
    pieces = "é".encode()

    def decode_bytes(ids):
        return bytes(pieces[id] for id in ids).decode(errors="replace")

    assert split_words([0, 1, 0, 1], decode_bytes, "zh") == [[0, 1], [0, 1]]


def test_marks_join_their_words():
    words = [Word(0, 1, text, 0.5) for text in (" hello", ",", ' "', "Hi", "!", '"')]
    assert [word.text for word in join_punctuation(words)] == [" hello,", ' "Hi!"']


def test_words_beside_pauses_are_cut_and_others_kept():
    words = [Word(0, 5, " a", 1), Word(5, 9, " b.", 1), Word(9, 14, " c", 1), Word(14, 20, " d", 1)]
    cut = [(word.start, word.end) for word in trim(words, 1.0)]
    assert cut == [(4, 5), (5, 6), (13, 14), (14, 15)]


def test_segments_take_the_times_of_their_words():
    times = np.array([0.2, 0.5, 0.9, 1.5, 9.0])
    parts = [TokenSegment(0, 1, (1, 2, 3)), TokenSegment(1, 3, (4,))]
    found = with_words(parts, times, np.full(4, 0.5), decode, "en")
    assert [(s.start, s.end, s.text) for s in found] == [(0.2, 0.9, " hello,"), (pytest.approx(7.6), 9.0, " wor")]
    assert [[word.text for word in segment.words] for segment in found] == [[" hello,"], [" wor"]]
