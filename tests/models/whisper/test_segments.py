"""Tokens of a window → segments whose times rise and lie inside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcli.models.whisper.segments import TokenSegment, before_gap, first_too_slow, token_segments, transcribed_until


class Plain:
    """Text is 0..9, 10 ends, times are 100 + n for n × 0.02 s."""

    def is_time(self, id):
        return id >= 100

    def is_text(self, id):
        return id < 10

    def seconds(self, id):
        return (id - 100) * 0.02


def t(seconds: float) -> int:
    return 100 + round(seconds / 0.02)


@pytest.mark.parametrize(
    "ids, expected, reason",
    [
        ([], [], "nothing said"),
        ([t(0), 1, 2, t(3)], [(0, 3, (1, 2))], "one segment"),
        ([t(0), 1, t(3), t(3), 2, t(5)], [(0, 3, (1,)), (3, 5, (2,))], "two that touch"),
        ([t(0.5), 1, t(3), t(4), 2, t(5)], [(0.5, 3, (1,)), (4, 5, (2,))], "two with a pause"),
        ([t(0), 1, t(3), t(3), 2], [(0, 3, (1,)), (3, 10, (2,))], "an end that was not written is the window's"),
        ([1, 2], [(0, 10, (1, 2))], "no times at all"),
        ([t(0), 1, t(30)], [(0, 10, (1,))], "a time behind the window"),
        ([t(0), 1, t(3), t(3)], [(0, 3, (1,))], "a start without text"),
        ([t(2), t(3)], [], "times without text"),
        ([t(5), t(2), 1, t(6)], [(2, 6, (1,))], "the last start before the text counts"),
        ([t(0), 1, t(3), 2, t(5)], [(0, 3, (1,)), (3, 5, (2,))], "a start that was not written"),
    ],
)
def test_token_segments(ids, expected, reason):
    found = [(part.start, part.end, part.ids) for part in token_segments(Plain(), ids, 10.0)]
    assert found == [(pytest.approx(start), pytest.approx(end), text) for start, end, text in expected], reason


@given(st.lists(st.one_of(st.integers(0, 10), st.integers(100, 1600)), max_size=30), st.floats(0.01, 30))
def test_any_tokens_keep_all_text_and_rising_times(ids, seconds):
    found = token_segments(Plain(), ids, seconds)
    assert [id for part in found for id in part.ids] == [id for id in ids if id < 10]
    times = [time for part in found for time in (part.start, part.end)]
    assert times == sorted(times) and all(0 <= time <= seconds for time in times)


@pytest.mark.parametrize(
    "ids, expected",
    [
        ([t(0), 1, t(3)], 10.0),  # it ended after its last segment: all was transcribed
        ([t(0), 1, t(3), t(3)], 3.0),  # it began another: more follows from there
        ([t(0), 1, t(3), t(3), 2], 10.0),
        ([t(3)], 10.0),
        ([], 10.0),
    ],
)
def test_transcribed_until(ids, expected):
    assert transcribed_until(Plain(), ids, 10.0) == pytest.approx(expected)


def part(start: float, end: float) -> TokenSegment:
    return TokenSegment(start, end, (1,))


@pytest.mark.parametrize(
    ("found", "reached", "kept", "until", "reason"),
    [
        ([part(0, 4), part(4, 9)], 9.5, 2, 9.5, "nothing is missing"),
        ([part(0, 4), part(6.9, 9)], 9.5, 2, 9.5, "a pause"),
        ([part(0, 4), part(7.1, 9)], 9.5, 1, 4, "longer than the pauses at which windows are cut"),
        ([part(0, 4), part(18, 22), part(22, 25)], 25.2, 1, 4, "it leapt over a sentence"),
        ([part(0, 4), part(4, 9)], 25.0, 2, 9, "it ended long before the audio"),
        ([part(0, 4), part(8, 9)], 25.0, 1, 4, "the first gap counts"),
        ([], 25.0, 0, 25.0, "nobody speaks"),
    ],
)
def test_what_lies_behind_a_hole_is_not_used(found, reached, kept, until, reason):
    assert before_gap(found, reached) == (found[:kept], until), reason


@pytest.mark.parametrize(
    ("lengths", "expected", "reason"),
    [
        ([(4.0, 9), (5.0, 12)], None, "as people speak"),
        ([(8.9, 6)], None, "slow, but possible"),
        ([(9.1, 6)], 0, "slower than a token a second, and a pause"),
        ([(4.0, 9), (20.0, 10), (20.0, 2)], 1, "the first that lasts longer than its text"),
        ([], None, "nothing was said"),
    ],
)
def test_a_segment_that_lasts_longer_than_its_text_is_found(lengths, expected, reason):
    found, reached = [], 0.0
    for seconds, tokens in lengths:
        found.append(TokenSegment(reached, reached + seconds, tuple(range(tokens))))
        reached += seconds
    assert first_too_slow(found) == expected, reason
